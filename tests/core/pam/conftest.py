"""The tiny checkpoint as files to be damaged, and commands about checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch

from pam_core.pam.location import INDEX, SINGLE
from tests.pam_plugins.cli.conftest import Ended, run_main
from tests.paths import PARITY

PARTS = ("config.json", "generation_config.json", "model.safetensors", "sam2_tiny.yaml")

Pam = Callable[..., Ended]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder with the tiny checkpoint, to be damaged. Its tokenizer is beside the weights."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(PARITY / "tokenizer", folder)
    for name in PARTS:
        shutil.copy(PARITY / name, folder / name)
    return folder


def shard(folder: Path) -> None:
    """Make two shards and an index of a checkpoint's single file."""
    weights = safetensors.torch.load_file(folder / SINGLE)
    keys = sorted(weights)
    homes = {}
    for number, part in enumerate((keys[::2], keys[1::2]), 1):
        name = f"model-{number:05d}-of-00002.safetensors"
        safetensors.torch.save_file({key: weights[key] for key in part}, folder / name)
        homes.update(dict.fromkeys(part, name))
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": homes}))
    (folder / SINGLE).unlink()


@pytest.fixture
def pam(monkeypatch: pytest.MonkeyPatch) -> Pam:
    """Any `pam` command in this process; fails the test where an error comes out as a traceback."""
    monkeypatch.setenv("COLUMNS", "250")
    return run_main
