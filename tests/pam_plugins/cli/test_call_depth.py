"""A click from `pam perceive` reaches the mask decoder through few functions of the project."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import pytest
import torch

from pam_plugins.models.lite.networks.mask_decoder import MaskDecoder
from tests.pam_plugins.cli.conftest import run_main
from tests.paths import PHOTOS, ROOT

ROOMS = (str(ROOT / "pam_plugins"), str(ROOT / "core" / "pam_core"))
MOST = 7


def test_a_click_reaches_the_mask_decoder_in_few_calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[list[str]] = []
    forward = MaskDecoder.forward

    def counted(self: MaskDecoder, *arguments: torch.Tensor) -> object:
        stacks = [traceback.extract_stack(frame) for frame in sys._current_frames().values()]
        frames = [frame for stack in stacks for frame in stack if frame.filename.startswith(ROOMS)]
        calls.append([f"{Path(frame.filename).stem}.{frame.name}" for frame in frames])
        return forward(self, *arguments)

    monkeypatch.setattr(MaskDecoder, "forward", counted)
    photo = next(iter(sorted(PHOTOS.glob("*.jpg"))))
    ended = run_main("perceive", photo, "--point", "100,100", "--model", "lite", "--out", tmp_path / "out.jsonl")
    assert ended.exit_code == 0, ended.stderr
    (frames,) = calls
    assert len(frames) <= MOST, frames
    assert frames == [
        "__init__.main",
        "perceive.command",
        "run_loop.run",
        "pipeline.run",
        "pipeline.perceive_picture",
        "model.segment",
        "segmenter.segment",
    ]
