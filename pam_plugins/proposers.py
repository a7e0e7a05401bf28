"""Finds the regions of a picture without a prompt: a grid of clicks, sifted by quality and by overlap.

Works with any region model, since it only clicks. Regions come back largest-confidence first.
"""

from __future__ import annotations

from pam_core.contracts import RegionModel
from pam_core.questions import ImageEmbedding
from pam_core.types import Prompt, Region


class GridProposer:
    """Clicks on a regular grid; keeps what the model is sure of; drops what is found twice (mask NMS)."""

    name = "grid"
    description = "clicks on a regular grid, sifted by confidence and mask overlap"

    def __init__(
        self,
        points_per_side: int = 12,
        min_iou: float = 0.82,
        min_stability: float = 0.85,
        max_overlap: float = 0.7,
        min_area: float = 0.001,
        max_area: float = 0.9,
        max_regions: int = 64,
    ) -> None:
        self.points_per_side = points_per_side
        self.min_iou = min_iou
        self.min_stability = min_stability
        self.max_overlap = max_overlap
        self.min_area = min_area
        self.max_area = max_area
        self.max_regions = max_regions

    def propose(self, model: RegionModel, embedding: ImageEmbedding) -> list[Region]:
        """Regions covering between `min_area` and `max_area` of the picture, no two with a higher IoU."""
        side = self.points_per_side
        prompts = [
            Prompt.at((column + 0.5) / side * embedding.width, (row + 0.5) / side * embedding.height)
            for row in range(side)
            for column in range(side)
        ]
        picture_area = embedding.width * embedding.height
        candidates = [
            region
            for (region,) in model.segment([(embedding, prompt) for prompt in prompts])
            if (region.predicted_iou is None or region.predicted_iou >= self.min_iou)
            and (region.stability is None or region.stability >= self.min_stability)
            and self.min_area * picture_area <= region.mask.area <= self.max_area * picture_area
        ]
        candidates.sort(key=_confidence, reverse=True)
        kept: list[Region] = []
        for region in candidates:
            overlaps = region.mask.iou([other.mask for other in kept])
            if not (overlaps > self.max_overlap).any():
                kept.append(region)
                if len(kept) == self.max_regions:
                    break
        return kept


def _confidence(region: Region) -> float:
    iou, stability = region.predicted_iou, region.stability
    return (1.0 if iou is None else iou) * (1.0 if stability is None else stability)
