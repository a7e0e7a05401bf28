"""Made-up pictures, regions and models: fast, deterministic, and with answers that are known beforehand.

`shapes()` draws flat shapes of named colours; `FakeModel` finds a shape again from a prompt on it and names its
colour. Importing this module needs numpy, OpenCV and Pillow only.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pam_core.contracts import ModelInfo, Tracker
from pam_core.errors import UnsupportedError
from pam_core.masks import BoolArray, Mask
from pam_core.questions import Answer, BatchDescription, Description, ImageEmbedding, Question
from pam_core.types import ModelRef, Perception, Picture, Prompt, Region
from pam_plugins.datasets.contracts import Job, Result
from pam_plugins.hookspecs import hookimpl

COLOURS = {
    "white": (255, 255, 255),
    "red": (220, 20, 20),
    "green": (20, 180, 20),
    "blue": (20, 20, 220),
    "yellow": (240, 220, 20),
    "black": (10, 10, 10),
    "magenta": (220, 20, 220),
    "cyan": (20, 220, 220),
}
CHINESE = dict(zip(COLOURS, "白红绿蓝黄黑紫青", strict=True))
BOTH = frozenset({"en", "zh"})

FAKE_INFO = ModelInfo(
    name="fake",
    revision="1",
    description="a made-up model that knows colours",
    licence="none",
    tasks={"label": BOTH, "brief": BOTH, "explanation": frozenset({"en"}), "text": BOTH},
)


@dataclass(frozen=True)
class Shape:
    """One shape of `shapes()`: its colour's name, what it covers, and a pixel well inside it (x, y)."""

    colour: str
    mask: BoolArray
    centre: tuple[int, int]

    @property
    def box(self) -> tuple[int, int, int, int]:
        ys, xs = np.nonzero(self.mask)
        return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def shapes(width: int = 120, height: int = 90, count: int = 4) -> tuple[Picture, list[Shape]]:
    """A white picture with up to seven shapes of different colours, apart from each other, in rows of four."""
    picture = np.full((height, width, 3), 255, np.uint8)
    columns, rows = min(count, 4), -(-count // 4)
    found = []
    for index, colour in enumerate(list(COLOURS)[1 : count + 1]):
        x = int((index % 4 + 0.5) * width / columns)
        y = int((index // 4 + 0.5) * height / rows)
        reach = int(min(width / columns, height / rows) * 0.35)
        canvas = np.zeros((height, width), np.uint8)
        if index % 2:
            cv2.circle(canvas, (x, y), reach, 1, -1)
        else:
            cv2.rectangle(canvas, (x - reach, y - reach), (x + reach, y + reach), 1, -1)
        mask = canvas.astype(bool)
        picture[mask] = COLOURS[colour]
        found.append(Shape(colour, mask, (x, y)))
    return picture, found


def write_picture(path: Path, picture: Picture) -> Path:
    """Write a picture in the format of the path's suffix; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    return path


def write_pictures(folder: Path, count: int, width: int = 48, height: int = 36) -> list[Path]:
    """`count` small PNG pictures of shapes, each with other content, in order of name."""
    paths = []
    for number in range(count):
        picture, _ = shapes(width, height, 2)
        picture[0, : width // 2] = (number % 256, number // 256, 77)
        paths.append(write_picture(folder / f"{number:04}.png", picture))
    return paths


def make_region(mask: BoolArray | None = None, **values: object) -> Region:
    """A region with a mask of 8x6 pixels unless another is given."""
    if mask is None:
        mask = np.zeros((6, 8), bool)
        mask[1:4, 2:7] = True
    return Region(**{"mask": Mask.from_array(mask), "model": FAKE_INFO.ref, **values})  # type: ignore[arg-type]


def make_perception(image: str = "cat.png", *regions: Region, **values: object) -> Perception:
    """A perception of a picture of 8x6 pixels unless told otherwise."""
    said = {"width": 8, "height": 6, "model": FAKE_INFO.ref, "regions": regions, "run": "run", **values}
    return Perception(image=image, **said)  # type: ignore[arg-type]


@dataclass(frozen=True)
class FakeEmbedding:
    """The picture, the connected areas of one colour in it, and their masks by number."""

    picture: Picture
    areas: np.ndarray
    masks: dict[int, Mask] = field(default_factory=dict)

    @property
    def width(self) -> int:
        return int(self.picture.shape[1])

    @property
    def height(self) -> int:
        return int(self.picture.shape[0])

    @property
    def nbytes(self) -> int:
        return self.picture.nbytes + self.areas.nbytes

    def mask(self, area: int) -> Mask:
        if area not in self.masks:
            self.masks[area] = Mask.from_array(self.areas == area)
        return self.masks[area]


class FakeModel:
    """Finds the area of one colour that a prompt is on and calls it by its colour.

    A box finds the area it fits best. Points on the background are taken away from those on the foreground. Every
    call counts: `embeds`, `segments` (prompts) and `describes` (regions). `seconds` is slept for each picture. To the
    file `log`, each process adds a line for each picture: its own id and a digest of the picture.
    """

    def __init__(self, info: ModelInfo = FAKE_INFO, seconds: float = 0.0, log: str | None = None) -> None:
        self.info = info
        self.seconds = seconds
        self.log = log
        self.embeds = self.segments = self.describes = 0

    def embed(self, pictures: Sequence[Picture]) -> list[FakeEmbedding]:
        return [self._embed(picture) for picture in pictures]

    def _embed(self, picture: Picture) -> FakeEmbedding:
        self.embeds += 1
        if self.log is not None:
            with Path(self.log).open("a") as file:
                file.write(f"{os.getpid()} {zlib.crc32(picture.tobytes()):08x}\n")
        time.sleep(self.seconds)
        areas = np.zeros(picture.shape[:2], np.int32)
        nearest = _nearest_colour(picture)
        for index in np.unique(nearest):
            count, parts = cv2.connectedComponents((nearest == index).astype(np.uint8), connectivity=4)
            areas[parts > 0] = parts[parts > 0] + areas.max()
            assert count > 1
        return FakeEmbedding(picture, areas)

    def segment(self, prompts: Sequence[tuple[ImageEmbedding, Prompt]]) -> list[list[Region]]:
        for embedding, prompt in prompts:
            prompt.check(embedding.width, embedding.height)
        self.segments += len(prompts)
        return [[self._region(embedding, prompt)] for embedding, prompt in prompts]

    def _region(self, seen: ImageEmbedding, prompt: Prompt) -> Region:
        assert isinstance(seen, FakeEmbedding)
        mask = prompt.mask or self._found(seen, prompt)
        return Region(mask, self.info.ref, prompt, predicted_iou=0.9, stability=0.95)

    def _found(self, seen: FakeEmbedding, prompt: Prompt) -> Mask:
        points = list(zip(prompt.points, prompt.labels, strict=True))
        wanted, unwanted = (
            [int(seen.areas[int(y), int(x)]) for (x, y), label in points if label == kind] for kind in (1, 0)
        )
        if prompt.box is not None and not wanted:
            wanted = [self._fitting(seen, prompt.box)]
        left = sorted(set(wanted) - set(unwanted))
        if len(left) == 1:
            return seen.mask(left[0])
        return Mask.from_array(np.isin(seen.areas, left))

    @staticmethod
    def _fitting(seen: FakeEmbedding, box: tuple[float, float, float, float]) -> int:
        """The area whose own box overlaps `box` best."""
        x1, y1, x2, y2 = box
        inside = np.unique(seen.areas[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))])

        def overlap(area: int) -> float:
            a1, b1, a2, b2 = seen.mask(area).box
            both = max(0.0, min(x2, a2) - max(x1, a1)) * max(0.0, min(y2, b2) - max(y1, b1))
            return both / ((x2 - x1) * (y2 - y1) + (a2 - a1) * (b2 - b1) - both)

        return max((int(area) for area in inside), key=overlap)

    def describe(self, questions: Sequence[Question]) -> Description:
        return BatchDescription(questions, self._answer, self._check)

    def _check(self, questions: Sequence[Question]) -> None:
        for question in questions:
            self.info.check([question.task], [question.language])

    def _answer(self, questions: Sequence[Question]) -> list[Answer]:
        self.describes += len({id(question.region) for question in questions})
        names: dict[bytes, str] = {}
        answers = []
        for question in questions:
            assert isinstance(question.embedding, FakeEmbedding) and question.region is not None
            mask = question.region.mask
            if mask.counts not in names:
                names[mask.counts] = self._name(question.embedding.picture, mask)
            text = _answers(names[mask.counts])[question.language][question.task]
            answers.append(Answer(question, text, {"label": 0.75}))
        return answers

    def open_tracker(self) -> Tracker:
        raise UnsupportedError(f"{self.info.name} tracks no objects.")

    @staticmethod
    def _name(picture: Picture, mask: Mask) -> str:
        if mask.area == 0:
            return "nothing"
        shares = np.bincount(_nearest_colour(picture)[mask.array], minlength=len(COLOURS))
        return list(COLOURS)[int(shares.argmax())]


def _nearest_colour(picture: Picture) -> np.ndarray:
    palette = np.array(list(COLOURS.values()), np.int16)
    return np.abs(picture[:, :, None, :].astype(np.int16) - palette).sum(axis=3).argmin(axis=2)


def _answers(name: str) -> dict[str, dict[str, str]]:
    chinese = CHINESE.get(name, "无")
    return {
        "en": {"label": name, "brief": f"A {name} thing.", "explanation": f"{name}: a colour.", "text": ""},
        "zh": {"label": f"{chinese}色", "brief": f"一个{chinese}色的东西。", "text": ""},
    }


class Shouter:
    """A post-processor that puts every label into capitals."""

    name = "shout"
    description = "labels in capitals"

    def process(self, perception: Perception) -> Perception:
        regions = tuple(
            region.with_texts({"label": {code: text.upper() for code, text in region.texts["label"].items()}})
            for region in perception.regions
        )
        return Perception(**{**vars(perception), "regions": regions})


class FakePlugin:
    """Brings `FakeModel` and `Shouter`, and keeps what the hook `pam_perceived` was told."""

    def __init__(self, model: FakeModel | None = None) -> None:
        self.model = model or FakeModel()
        self.perceived: list[Perception] = []

    @hookimpl
    def pam_models(self) -> Sequence[ModelInfo]:
        return [replace(self.model.info, load=lambda device, compile: self.model)]

    @hookimpl
    def pam_postprocessors(self) -> Sequence[Shouter]:
        return [Shouter()]

    @hookimpl
    def pam_perceived(self, perception: Perception) -> None:
        self.perceived.append(perception)


def as_result(perception: Perception, pixels: Picture | None = None) -> Result:
    """The result of a job of the perception's picture."""
    return Result(Job(Path(perception.image)), perception, pixels)


OTHER_MODEL = ModelRef("other", "7", "another made-up model")
