"""The whole of `lite` on annotated clicks in real photographs, as benchmarks/clicks.py measures it.

The thresholds leave room for other machines' arithmetic, no more: measured values are in docs/benchmarks.md.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.clicks import evaluate, is_accepted, read_clicks

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(1800)  # minutes on one thread, more on a busy machine
def test_labels_and_masks_of_the_annotated_clicks() -> None:
    judged = evaluate(read_clicks())
    assert len(judged) == 169
    assert np.mean([right for _, _, right, _ in judged]) >= 0.60
    assert np.mean([iou for *_, iou in judged]) >= 0.67
    for _, region, _, _ in judged:
        assert region.model.name == "lite"
        assert 0 <= region.scores["label"] <= 1


@pytest.mark.parametrize(
    ("label", "right"), [("dog", True), ("Dog", True), ("guide dog", True), ("hot", False), ("hotdog", False)]
)
def test_a_label_is_right_by_its_head_noun(label: str, right: bool) -> None:
    assert is_accepted(label, ["dog"]) is right
