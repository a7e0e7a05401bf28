"""Made-up videos with known masks: cut-outs moving over photographs. Deterministic by seed.

The light flickers, the picture has grain, some backgrounds pan, and the objects turn and sway a little, so that no
two frames are alike. What is hidden behind something or out of the picture is not in an object's mask.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pam_core.media.images import read_picture
from pam_core.types import Picture, Prompt
from pam_core.video import Frame

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
"""Photographs and the clicks annotated on them."""

FPS = 10.0

THINGS = (
    ("bee.jpg", "bee"),
    ("bus.jpg", "bus"),
    ("chickens.jpg", "hen"),
    ("coffee.jpg", "cup"),
    ("cow.jpg", "cow"),
    ("dog.jpg", "dog"),
    ("fruits.jpg", "lime"),
    ("horse.jpg", "horse"),
    ("kingfisher.jpg", "kingfisher"),
    ("kitten.jpg", "kitten"),
    ("motorcycle.jpg", "motorcycle"),
    ("swans.jpg", "swan"),
    ("astronaut.jpg", "woman"),
    ("kiwi.jpg", "kiwi fruit"),
)
"""Annotated objects (tests/data/clicks.jsonl) that are cut out of their photographs."""

BACKGROUNDS = (
    "mountains.jpg",
    "courtyard.jpg",
    "canteen.jpg",
    "colosseum.jpg",
    "boats.jpg",
    "pagoda.jpg",
    "books.jpg",
    "desk_items.jpg",
    "drums.jpg",
    "street_sign.jpg",
    "dandelions.jpg",
    "aloe.jpg",
)

KINDS = {"straight": 3, "curved": 3, "growing": 3, "crossing": 6, "comeback": 5, "behind": 4}
"""How many videos of each kind `videos` makes."""


@dataclass(frozen=True)
class CutOut:
    """RGB pixels (H, W, 3) and how much of each belongs to the object, float32 (H, W) in [0, 1]."""

    name: str
    pixels: Picture
    alpha: npt.NDArray[np.float32]


@dataclass(frozen=True)
class MadeUpVideo:
    """Frames, and what can be seen of each object on each, boolean (objects, frames, H, W)."""

    kind: str
    names: tuple[str, ...]
    frames: tuple[Frame, ...]
    masks: npt.NDArray[np.bool_]

    def prompts(self) -> dict[int, Prompt]:
        """The objects' masks on the first frame, by number from 1."""
        return {number: Prompt.from_mask(of_one[0]) for number, of_one in enumerate(self.masks, 1)}


@dataclass(frozen=True)
class Moving:
    """A cut-out with its centre (frames, 2) in pixels, its long side in pixels and its turn in degrees (frames)."""

    what: CutOut
    centre: npt.NDArray[np.float64]
    side: npt.NDArray[np.float64]
    turn: npt.NDArray[np.float64]


@lru_cache(maxsize=1)
def photo_cut_outs() -> tuple[CutOut, ...]:
    """The things cut out of the photographs, by MobileSAM's masks of their annotated clicks and boxes. Slow."""

    from pam_plugins.models.lite.model import load

    segmenter = load("cpu").segmenter
    clicks = [json.loads(line) for line in (DATA / "clicks.jsonl").read_text(encoding="utf-8").splitlines()]
    found = []
    for photo, thing in THINGS:
        click = next(click for click in clicks if click["photo"] == photo and click["object"] == thing)
        picture = read_picture(DATA / "photos" / photo)
        prompt = Prompt(points=(tuple(click["point"]),), box=tuple(click["box"]))
        mask = segmenter.segment(segmenter.embed(picture), picture.shape[:2], [prompt])[0].mask
        _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8))
        x, y, width, height, _ = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()]
        largest = (parts == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.float32)
        inside = np.s_[y : y + height, x : x + width]
        found.append(CutOut(thing, picture[inside], largest[inside]))
    return tuple(found)


def drawn_cut_out(seed: int, colour: tuple[int, int, int]) -> CutOut:
    """A round thing of one colour with blots on it; needs no network."""
    random = np.random.default_rng(seed)
    blots = cv2.resize(random.uniform(-40, 40, (6, 6, 3)).astype(np.float32), (96, 96), interpolation=cv2.INTER_CUBIC)
    alpha = np.zeros((96, 96), np.float32)
    cv2.ellipse(alpha, (48, 48), (46, 34), 0, 0, 360, 1.0, -1)
    return CutOut(f"blob {seed}", np.clip(np.array(colour) + blots, 0, 255).astype(np.uint8), alpha)


def videos(seed: int = 0, kinds: Collection[str] = tuple(KINDS)) -> Iterator[MadeUpVideo]:
    """The videos of the benchmark, one after the other: KINDS, 40 to 60 frames, 320 to 480 pixels wide."""
    for number, kind in enumerate(kind for kind, count in KINDS.items() for _ in range(count)):
        if kind in kinds:
            random = np.random.default_rng((seed, number))
            width = int(random.integers(20, 31)) * 16
            background = read_picture(DATA / "photos" / BACKGROUNDS[number % len(BACKGROUNDS)])
            yield make_video(
                kind, random, photo_cut_outs(), background, int(random.integers(40, 61)), (width, width * 3 // 4)
            )


def make_video(
    kind: str,
    random: np.random.Generator,
    cut_outs: Sequence[CutOut],
    background: Picture,
    frames: int,
    size: tuple[int, int],
) -> MadeUpVideo:
    """One video of one of KINDS, of `size` (width, height). One object, or two where they cross."""
    chosen = [cut_outs[i] for i in random.choice(len(cut_outs), 2, replace=False)]
    along = np.linspace(0, 1, frames)
    paths = _paths(kind, along, random)
    short = min(size)
    moving = []
    for what, (path, growth) in zip(chosen, paths, strict=False):
        sway = np.sin(along * random.uniform(6, 14) + random.uniform(0, 6))
        side = short * random.uniform(0.3, 0.45) * growth
        moving.append(Moving(what, path * size, side, random.uniform(4, 10) * sway))
    screen = None
    if kind == "behind":
        screen = Moving(
            _patch(random),
            np.tile(np.array(size) * (random.uniform(0.45, 0.55), 0.5), (frames, 1)),
            np.full(frames, short * 0.95),
            np.zeros(frames),
        )
    return _film(kind, random, moving, screen, background, frames, size)


def _paths(
    kind: str, along: npt.NDArray[np.float64], random: np.random.Generator
) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """For each object its centre in shares of the picture (frames, 2), and its growth (frames)."""
    same = np.ones_like(along)
    height = random.uniform(0.4, 0.6)
    slope = random.uniform(-0.15, 0.15)
    line = np.stack([0.2 + 0.6 * along, height + slope * (along - 0.5)], axis=1)
    if kind == "curved":
        bend = np.sin(along * np.pi * random.uniform(1.5, 2.5)) * random.uniform(0.15, 0.22)
        line[:, 1] = height + bend
    if kind == "growing":
        line[:, 0] = 0.4 + 0.2 * along
        return [_turned(line, np.linspace(0.6, random.uniform(1.5, 1.9), len(along)), random)]
    if kind == "comeback":  # out on one side; in again there, or on the other side
        away = np.concatenate([np.linspace(0.5, 1.35, len(along) // 2), np.full(len(along) // 8, 1.35)])
        back = np.linspace(*random.choice([(1.35, 0.5), (-0.35, 0.5)]), len(along) - len(away))
        line[:, 0] = np.concatenate([away, back])
    if kind == "behind":
        line[:, 0] = 0.13 + 0.74 * along
    if kind == "crossing":
        other = np.stack([0.8 - 0.6 * along, np.full(len(along), height + random.uniform(-0.06, 0.06))], axis=1)
        return [(line, same), (other, same)]
    return [_turned(line, same, random)]


def _turned(
    path: npt.NDArray[np.float64], growth: npt.NDArray[np.float64], random: np.random.Generator
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The same path, or its mirror image."""
    return (path * (-1, 1) + (1, 0) if random.random() < 0.5 else path), growth


def _patch(random: np.random.Generator) -> CutOut:
    """An upright piece of a photograph to pass behind."""
    photo = read_picture(DATA / "photos" / ("squirrel.jpg", "books.jpg")[int(random.integers(2))])
    high = photo.shape[0]
    piece = photo[:, : int(high * random.uniform(0.5, 0.6))]
    return CutOut("screen", piece, np.ones(piece.shape[:2], np.float32))


def _film(
    kind: str,
    random: np.random.Generator,
    moving: Sequence[Moving],
    screen: Moving | None,
    background: Picture,
    frames: int,
    size: tuple[int, int],
) -> MadeUpVideo:
    """Lay the objects over the background, the first at the back, the screen before them all."""
    width, height = size
    room = 1.15
    scale = max(width * room / background.shape[1], height * room / background.shape[0])
    wide = cv2.resize(background, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    pan = np.array([wide.shape[1] - width, wide.shape[0] - height]) * random.choice([0, 0, 1])
    masks = np.zeros((len(moving), frames, height, width), bool)
    filmed = []
    for number in range(frames):
        left, top = (pan * number / frames).astype(int)
        canvas = wide[top : top + height, left : left + width].astype(np.float32)
        for index, thing in enumerate([*moving, *([screen] if screen else [])]):
            pixels, alpha = _placed(thing, number, size)
            canvas = canvas * (1 - alpha[..., None]) + pixels
            masks[: min(index, len(moving)), number] &= alpha < 0.5
            if index < len(moving):
                masks[index, number] = alpha >= 0.5
        light = 1 + 0.06 * np.sin(number / 4) + random.normal(0, 0.01)
        grain = random.normal(0, 4, canvas.shape)
        picture = np.clip(canvas * light + grain, 0, 255).astype(np.uint8)
        filmed.append(Frame(number, number / FPS, picture))
    return MadeUpVideo(kind, tuple(thing.what.name for thing in moving), tuple(filmed), masks)


def _placed(
    thing: Moving, number: int, size: tuple[int, int]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The cut-out on an empty canvas as it lies on one frame: its pixels times alpha, and alpha."""
    high, wide = thing.what.alpha.shape
    scale = thing.side[number] / max(high, wide)
    # Shrunk by area first, as sampling alone would flicker.
    small = (max(2, round(wide * scale)), max(2, round(high * scale)))
    pixels = cv2.resize(thing.what.pixels, small, interpolation=cv2.INTER_AREA).astype(np.float32)
    alpha = cv2.resize(thing.what.alpha, small, interpolation=cv2.INTER_AREA)
    matrix = cv2.getRotationMatrix2D((small[0] / 2, small[1] / 2), thing.turn[number], 1.0)
    matrix[:, 2] += thing.centre[number] - (small[0] / 2, small[1] / 2)
    layers = np.dstack([pixels * alpha[..., None], alpha])
    laid = cv2.warpAffine(layers, matrix, size, flags=cv2.INTER_LINEAR)
    return laid[..., :3], laid[..., 3]
