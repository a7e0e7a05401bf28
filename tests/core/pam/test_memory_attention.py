"""Attending to memories with less work gives what SAM 2's own module gives."""

from __future__ import annotations

import pytest
import torch

from pam_core.pam.memory_attention import QUERIES, attend_memory
from pam_core.pam.model import PamModel


@pytest.mark.parametrize(("maps", "pointers"), [(1, 0), (2, 12)])
@torch.inference_mode()
def test_objects_see_what_sam2_shows_each_of_them(tiny: PamModel, maps: int, pointers: int) -> None:
    attention, config = tiny.vision.sam.memory_attention, tiny.vision.config
    made = torch.Generator().manual_seed(0)
    cells, keys = config.grid**2, maps * config.grid**2 + pointers
    assert cells > QUERIES  # they go in several portions
    frame, position = (torch.randn(1, cells, config.dim, generator=made) for _ in range(2))
    memory, places = (torch.randn(2, keys, config.memory_dim, generator=made) for _ in range(2))
    got = attend_memory(attention, frame, position, memory, places, pointers)
    own = attention(
        curr=[frame.transpose(0, 1).expand(-1, 2, -1)],
        curr_pos=[position.transpose(0, 1).expand(-1, 2, -1)],
        memory=memory.transpose(0, 1),
        memory_pos=places.transpose(0, 1),
        num_obj_ptr_tokens=pointers,
    ).transpose(0, 1)
    assert float((got[0] - got[1]).abs().max()) > 1e-3  # each object its own
    torch.testing.assert_close(got, own, rtol=1e-5, atol=2e-5)
