"""Which checkpoints of PAM there are: the one named by PAM_CHECKPOINT, and the released ones.

Reads folders and loads no model, so that `pam models` and `--model auto` are quick.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

from pam_core.contracts import ModelInfo, RegionModel
from pam_core.errors import CheckpointError, needs_extra
from pam_core.pam.location import find, fingerprint
from pam_plugins import plugins

VARIABLE = "PAM_CHECKPOINT"
NEEDED = {
    "torch": "torch",
    "transformers": "transformers",
    "sam2": "sam2",
    "hydra": "hydra-core",
    "iopath": "iopath",
    "yaml": "pyyaml",
    "huggingface_hub": "huggingface-hub",
}
"""Packages of the extra `pam` by module."""
UNTRAINED = frozenset({"text"})
"""Questions the released models never learned to answer."""


@dataclass(frozen=True)
class Known:
    """A checkpoint by its name on the command line: where it is, what it is, and its rank for `auto`."""

    source: str
    description: str
    licence: str
    rank: int


RELEASED = {
    "pam-3b": Known(
        "PAM-3B",
        "the Perceive Anything Model with 3 billion parameters",
        "see its model card (Qwen2.5-3B inside)",
        30,
    ),
    "pam-1.5b": Known(
        "PAM-1.5B",
        "the Perceive Anything Model with 1.5 billion parameters",
        "see its model card (Qwen2.5-1.5B inside)",
        20,
    ),
}


def known() -> dict[str, Known]:
    """Every checkpoint that is configured or released, by name, whether it is here or not."""
    configured = os.environ.get(VARIABLE)
    if not configured:
        return RELEASED
    return {
        "pam": Known(configured, f"the PAM checkpoint that {VARIABLE} names", "that of the checkpoint", 40),
        **RELEASED,
    }


def infos() -> list[ModelInfo]:
    """What `pam models` shows of them."""
    questions = {
        task.name: frozenset(task.questions)
        for task in plugins.tasks().values()
        if task.questions and task.name not in UNTRAINED
    }
    packages = [package for module, package in NEEDED.items() if find_spec(module) is None]
    listed = []
    for name, checkpoint in known().items():
        revision, missing = "not here", None
        if packages:  # to search for a checkpoint takes one of them too
            missing = f"pip install 'pam-plugins[pam]' (lacking: {', '.join(packages)})"
        else:
            try:
                revision = fingerprint(find(checkpoint.source))
            except (CheckpointError, OSError) as error:
                missing = str(error)
        listed.append(
            ModelInfo(
                name=name,
                revision=revision,
                description=checkpoint.description,
                licence=checkpoint.licence,
                tasks=questions,
                rank=checkpoint.rank,
                video=True,
                missing=missing,
                load=None if missing else partial(_load, name, checkpoint.source),
            )
        )
    return listed


def _load(name: str, source: str, device: str, compile: bool) -> RegionModel:
    with needs_extra("pam", f"The model {name}"):
        from pam_plugins.models.pam.loading import load

    return load(name, source, device, compile)
