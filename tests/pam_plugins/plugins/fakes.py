"""Doubles of models and plugins, in memory and on disk; and the environment for processes of this checkout."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from pam_core.contracts import ModelInfo, Tracker
from pam_core.errors import UnsupportedError
from pam_core.masks import Mask
from pam_core.questions import Answer, BatchDescription, Description, ImageEmbedding, Question
from pam_core.types import Picture, Prompt, Region
from pam_plugins import hookimpl
from tests.paths import ROOT

LANGUAGES = frozenset({"en", "zh"})

Install = Callable[..., str]
"""`install(name, code, distribution)`, the fixture; it returns the name of the module made."""


@dataclass
class FakeEmbedding:
    width: int
    height: int
    nbytes: int = 1


class FakeModel:
    """Takes the whole picture for every prompt and answers every task with its own name."""

    def __init__(self, info: ModelInfo, device: str) -> None:
        self.info = info
        self.device = device

    def embed(self, pictures: Sequence[Picture]) -> list[FakeEmbedding]:
        return [FakeEmbedding(picture.shape[1], picture.shape[0]) for picture in pictures]

    def segment(self, prompts: Sequence[tuple[ImageEmbedding, Prompt]]) -> list[list[Region]]:
        return [[self._whole(embedding, prompt)] for embedding, prompt in prompts]

    def _whole(self, embedding: ImageEmbedding, prompt: Prompt) -> Region:
        whole = Mask.from_array(np.ones((embedding.height, embedding.width), bool))
        return Region(whole, self.info.ref, prompt)

    def describe(self, questions: Sequence[Question]) -> Description:
        def answer(group: Sequence[Question]) -> list[Answer]:
            return [Answer(question, self.info.name) for question in group]

        return BatchDescription(questions, answer)

    def open_tracker(self) -> Tracker:
        raise UnsupportedError(f"{self.info.name} tracks no objects.")


class FakePlugin:
    """Lists models and counts how often each is loaded."""

    def __init__(self, *infos: ModelInfo) -> None:
        self.infos = [replace(info, load=partial(self._load, info)) for info in infos]
        self.loads: list[str] = []

    @hookimpl
    def pam_models(self) -> Sequence[ModelInfo]:
        return self.infos

    def _load(self, info: ModelInfo, device: str, compile: bool) -> FakeModel:
        self.loads.append(info.name)
        return FakeModel(info, device)


def fake_info(name: str, rank: int = 0, missing: str | None = None) -> ModelInfo:
    return ModelInfo(name, "1", "a double for tests", "none", {"label": LANGUAGES}, rank=rank, missing=missing)


def write_plugin(site: Path, name: str, module: str, code: str, distribution: str) -> None:
    """A module and the metadata that makes it a plugin, as they lie in site-packages."""
    (site / f"{module}.py").write_text(code, encoding="utf-8")
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[pam]\n{name} = {module}\n", encoding="utf-8")


def environment(*first: Path, **variables: str) -> dict[str, str]:
    """The environment for a process that runs this checkout, with `first` before it on the path."""
    paths = [*map(str, first), str(ROOT), str(ROOT / "core")]
    kept = {name: value for name, value in os.environ.items() if name not in ("PAM_PLUGINS", "PYTHONPATH")}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "250", "PYTHONUTF8": "1", **variables}
