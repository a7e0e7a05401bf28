"""What `lite` says of itself."""

from __future__ import annotations

from importlib.util import find_spec

from pam_core.contracts import ModelInfo

_BOTH = frozenset({"en", "zh"})
_CAN_READ = find_spec("rapidocr") is not None and find_spec("onnxruntime") is not None

INFO = ModelInfo(
    name="lite",
    revision="5",
    description=(
        "a small composed model (MobileSAM masks, EfficientNet-Lite2 and a COCO detector for labels, WordNet "
        "explanations, captions from measured facts; follows objects by prompting anew on every frame); "
        "not the Perceive Anything Model"
    ),
    licence="Apache-2.0 and MIT (weights), WordNet 3.0 (nouns)",
    tasks={"label": _BOTH, "explanation": _BOTH, "brief": _BOTH, "detailed": _BOTH}
    | ({"text": _BOTH} if _CAN_READ else {}),
    lacking={} if _CAN_READ else {"text": "it needs RapidOCR; pip install 'pam-plugins[ocr]'."},
    rank=10,
    video=True,
)
