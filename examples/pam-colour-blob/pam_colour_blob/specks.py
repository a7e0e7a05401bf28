"""The post-processor `no-specks`."""

from __future__ import annotations

from dataclasses import replace

from pam_core.types import Perception

SMALLEST = 0.0005
"""The smallest share of the picture that a region may cover."""


class NoSpecks:
    """Drops regions too small to mean anything; `--postprocess no-specks` asks for it."""

    name = "no-specks"
    description = f"drops regions smaller than {SMALLEST:.2%} of the picture"

    def process(self, perception: Perception) -> Perception:
        least = SMALLEST * perception.width * perception.height
        return replace(perception, regions=tuple(r for r in perception.regions if r.mask.area >= least))
