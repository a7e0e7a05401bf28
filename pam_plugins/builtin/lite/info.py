"""What `lite` says of itself."""

from __future__ import annotations

from pam_core.contracts import ModelInfo

_BOTH = frozenset({"en", "zh"})

INFO = ModelInfo(
    name="lite",
    revision="1",
    description=(
        "a small composed model (MobileSAM masks, EfficientNet-Lite2 and a COCO detector for labels, WordNet "
        "explanations, captions from measured facts); not the Perceive Anything Model"
    ),
    licence="Apache-2.0 and MIT (weights), WordNet 3.0 (nouns)",
    tasks={"label": _BOTH, "explanation": _BOTH, "brief": _BOTH, "detailed": _BOTH, "text": _BOTH},
    rank=10,
)
