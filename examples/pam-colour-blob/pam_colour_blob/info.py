"""What the model says of itself: known without loading it."""

from __future__ import annotations

from pam_core.contracts import ModelInfo

INFO = ModelInfo(
    name="colour-blob",
    revision="1",
    description="pixels of similar colour that hang together; an example, without a network",
    licence="Apache-2.0",
    tasks={"mean-colour": frozenset({"en", "zh"})},
    rank=-10,  # below every real model: `auto` should not choose an example
)
