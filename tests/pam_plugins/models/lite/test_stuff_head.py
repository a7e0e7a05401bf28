"""The head for stuff: its classes, what it measures of a region, and that its weights fit."""

from __future__ import annotations

import json
import re
from importlib import resources

import numpy as np
import pytest
import torch

from pam_plugins.models.lite.loading import load_weights
from pam_plugins.models.lite.networks.efficientnet import NUM_FEATURES
from pam_plugins.models.lite.networks.stuff_head import (
    CLASSES,
    MIN_SIDE,
    NUM_MEASUREMENTS,
    StuffHead,
    inner_square,
    measure,
)
from tests.paths import ROOT

CPU = torch.device("cpu")
ANNOTATIONS = ROOT / "tools" / "lite_stuff_annotations.jsonl"


def area_mask(height: int, width: int, *boxes: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in boxes:
        mask[y1:y2, x1:x2] = True
    return mask


@pytest.fixture(scope="module")
def head() -> StuffHead:
    return load_weights(StuffHead(), "stuff_head", CPU)


class TestClasses:
    def test_other_is_first_and_alone_has_no_synset(self) -> None:
        assert [c.name for c in CLASSES if c.synset is None] == ["other"] == [CLASSES[0].name]

    def test_names_and_synsets_are_unique(self) -> None:
        assert len({c.name for c in CLASSES}) == len({c.synset for c in CLASSES}) == len(CLASSES)

    def test_synsets_are_wordnet_ids(self) -> None:
        assert all(re.fullmatch(r"n\d{8}", c.synset) for c in CLASSES if c.synset)

    def test_every_class_was_trained_on_several_pictures(self) -> None:
        rows = [json.loads(line) for line in ANNOTATIONS.read_text(encoding="utf-8").splitlines()]
        for c in CLASSES:
            assert len({row["source"] for row in rows if row["class"] == c.name}) >= 3, c.name


class TestInnerSquare:
    def test_of_a_rectangle_is_its_height_wide(self) -> None:
        x1, y1, x2, y2 = inner_square(area_mask(200, 300, (50, 60, 250, 160)))
        assert x2 - x1 == y2 - y1 == pytest.approx(100, abs=2)
        assert (x1, y1) >= (49, 58) and (x2, y2) <= (251, 162)

    def test_takes_the_larger_part(self) -> None:
        x1, y1, x2, y2 = inner_square(area_mask(200, 200, (0, 0, 30, 30), (100, 100, 180, 180)))
        assert min(x1, y1) >= 98 and max(x2, y2) <= 182

    def test_reaches_the_pictures_border(self) -> None:
        x1, y1, x2, y2 = inner_square(np.ones((100, 100), bool))
        assert x2 - x1 >= 98 and min(x1, y1) >= -1 and max(x2, y2) <= 101

    def test_stays_inside_a_ring(self) -> None:
        mask = area_mask(300, 300, (0, 0, 300, 300)) & ~area_mask(300, 300, (100, 100, 200, 200))
        x1, y1, x2, y2 = (round(v) for v in inner_square(mask))
        assert mask[max(0, y1 + 2) : y2 - 2, max(0, x1 + 2) : x2 - 2].all()

    def test_is_not_smaller_than_the_least_side(self) -> None:
        x1, y1, x2, y2 = inner_square(area_mask(50, 50, (10, 20, 11, 21)))
        assert x2 - x1 == y2 - y1 == MIN_SIDE
        assert ((x1 + x2) / 2, (y1 + y2) / 2) == (10.5, 20.5)

    def test_a_line_in_a_large_picture_is_found(self) -> None:
        x1, y1, x2, y2 = inner_square(area_mask(3000, 4000, (100, 2000, 3900, 2001)))
        assert y1 < 2000.5 < y2
        assert 100 <= (x1 + x2) / 2 <= 3900

    def test_is_the_same_in_a_larger_picture(self) -> None:
        mask = area_mask(200, 300, (20, 30, 220, 150), (200, 20, 280, 60))
        large = mask.repeat(8, axis=0).repeat(8, axis=1)
        assert np.allclose(inner_square(large), np.array(inner_square(mask)) * 8, atol=24)


class TestMeasure:
    def test_a_grey_upper_half(self) -> None:
        picture = np.full((100, 200, 3), 119, np.uint8)
        numbers = measure(picture, area_mask(100, 200, (0, 0, 200, 50)))
        assert numbers.shape == (NUM_MEASUREMENTS,)
        assert numbers.dtype == np.float32
        expected = [0.245, 0.5, 1, 0.5, 1, 0.49, 1, 0, 0.5, 0.5, 0.5, 0, 0, 0, 0, 0]
        assert np.allclose(numbers, expected, atol=0.02)

    def test_only_the_region_gives_the_colour(self) -> None:
        picture = np.zeros((80, 80, 3), np.uint8)
        mask = area_mask(80, 80, (10, 10, 70, 70))
        plain = measure(picture, mask)
        picture[~mask] = 255
        assert np.array_equal(measure(picture, mask), plain)

    def test_depends_little_on_the_pictures_size(self) -> None:
        random = np.random.default_rng(0)
        picture = random.integers(0, 256, (30, 40, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
        mask = area_mask(240, 320, (32, 64, 300, 200))
        large = measure(picture.repeat(4, axis=0).repeat(4, axis=1), mask.repeat(4, axis=0).repeat(4, axis=1))
        assert np.allclose(measure(picture, mask), large, atol=0.03)

    def test_one_pixel(self) -> None:
        assert np.isfinite(measure(np.zeros((5, 5, 3), np.uint8), area_mask(5, 5, (4, 4, 5, 5)))).all()


class TestHead:
    def test_weights_are_small(self) -> None:
        path = resources.files("pam_plugins.models.lite") / "weights" / "stuff_head.safetensors"
        assert len(path.read_bytes()) < 1_000_000

    def test_gives_probabilities(self, head: StuffHead) -> None:
        generator = torch.Generator().manual_seed(0)
        around, inside = torch.rand(2, 3, NUM_FEATURES, generator=generator)
        found = head(around, inside, torch.rand(3, NUM_MEASUREMENTS, generator=generator))
        assert found.shape == (3, len(CLASSES))
        assert torch.allclose(found.sum(dim=1), torch.ones(3))
        assert (found >= 0).all()

    def test_takes_no_regions(self, head: StuffHead) -> None:
        none = torch.empty(0, NUM_FEATURES)
        assert head(none, none, torch.empty(0, NUM_MEASUREMENTS)).shape == (0, len(CLASSES))
