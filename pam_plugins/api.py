"""What Python users call: perceive a picture."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pam_core.contracts import RegionModel
from pam_core.errors import PictureError
from pam_core.media.images import read_picture
from pam_core.types import Perception, Picture, Prompt
from pam_plugins.options import Options
from pam_plugins.pipeline import perceive_picture
from pam_plugins.plugins import load_model

_latest: list[RegionModel] = []


def perceive(
    picture: str | Path | Picture,
    prompts: Sequence[Prompt] = (),
    *,
    model: str | RegionModel = "auto",
    options: Options = Options(),
    name: str | None = None,
) -> Perception:
    """Mask, label, explain and caption what `prompts` point at; without prompts, everything in the picture.

    `picture` is a path or an RGB array (H, W, 3) uint8, `name` what the result calls it. A model given by name is
    kept for the next call, until another is used or `release_model` is called. Raises PictureError, PromptError,
    UnsupportedError and NotFoundError before the model begins.
    """
    if isinstance(model, str):
        _latest[:] = [load_model(model)]
    region_model = _latest[0] if isinstance(model, str) else model
    read_seconds = None
    if isinstance(picture, (str, Path)):
        started = time.perf_counter()
        pixels = read_picture(picture)
        read_seconds = time.perf_counter() - started
        name = name or str(picture)
    else:
        pixels = picture
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise PictureError(
                f"Got an array {pixels.dtype} {pixels.shape}; wanted an RGB picture uint8 (height, width, 3)."
            )
    return perceive_picture(pixels, prompts, region_model, options, name or "array", read_seconds)


def release_model() -> None:
    """Let go of the model that `perceive` keeps; its memory and its cached embeddings are freed with it."""
    _latest.clear()
