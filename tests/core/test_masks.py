"""Masks: no pixel lost in any encoding, numbers equal to numpy's, broken run lengths refused."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pam_core.errors import MaskError
from pam_core.masks import Mask
from tests.core.strategies import arrays, arrays_of, set_masks, shapes


def numpy_box(array: np.ndarray) -> tuple[float, float, float, float]:
    ys, xs = np.nonzero(array)
    if not len(xs):
        return (0, 0, 0, 0)
    return (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def run_lengths(array: np.ndarray) -> list[int]:
    """Uncompressed COCO run lengths: column by column, starting with a run of zeros."""
    flat = array.flatten(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


@given(arrays)
def test_round_trips_keep_every_pixel(array: np.ndarray) -> None:
    mask = Mask.from_array(array)
    assert (mask.height, mask.width) == array.shape
    assert np.array_equal(mask.array, array)
    assert Mask.from_coco(mask.to_coco()) == mask
    assert Mask.from_coco(json.loads(json.dumps(mask.to_coco()))) == mask
    assert Mask.from_coco({"size": list(array.shape), "counts": mask.counts}) == mask


@given(arrays)
def test_uncompressed_run_lengths_are_read(array: np.ndarray) -> None:
    mask = Mask.from_coco({"size": list(array.shape), "counts": run_lengths(array)})
    assert np.array_equal(mask.array, array)
    assert mask == Mask.from_array(array)


@given(arrays)
def test_area_and_box_are_those_of_numpy(array: np.ndarray) -> None:
    mask = Mask.from_array(array)
    assert mask.area == array.sum()
    assert mask.box == numpy_box(array)


@given(arrays)
def test_cropped_is_what_lies_within_the_box(array: np.ndarray) -> None:
    x1, y1, x2, y2 = (int(side) for side in numpy_box(array))
    assert np.array_equal(Mask.from_array(array).cropped, array[y1:y2, x1:x2])


@given(shapes.flatmap(lambda shape: st.lists(arrays_of(shape), min_size=1, max_size=4)))
def test_iou_is_that_of_numpy(stack: list[np.ndarray]) -> None:
    first, *others = stack
    unions = [(first | other).sum() for other in others]
    wanted = [(first & other).sum() / union if union else 0.0 for other, union in zip(others, unions, strict=True)]
    found = Mask.from_array(first).iou([Mask.from_array(other) for other in others])
    assert found.shape == (len(others),)
    assert np.allclose(found, wanted)


@given(arrays)
def test_layout_in_memory_does_not_matter(array: np.ndarray) -> None:
    mask = Mask.from_array(array)
    assert Mask.from_array(np.asfortranarray(array)) == mask
    assert Mask.from_array(np.repeat(array, 2, axis=1)[:, ::2]) == mask
    assert np.array_equal(Mask.from_array(array[::-1, ::-1]).array, array[::-1, ::-1])
    assert np.array_equal(Mask.from_array(array.T).array, array.T)


def test_a_read_only_array_is_taken() -> None:
    array = np.eye(5, dtype=bool)
    array.setflags(write=False)
    assert Mask.from_array(array).area == 5


def test_array_is_fresh_and_can_be_written() -> None:
    mask = Mask.from_array(np.eye(4, dtype=bool))
    mask.array[:] = True
    assert mask.area == mask.array.sum() == 4
    assert mask.array.flags.c_contiguous
    assert mask.array.dtype == bool


def test_a_photo_sized_mask_stays_small() -> None:
    array = np.zeros((3000, 4000), bool)
    array[500:2500, 1000:3000] = True
    mask = Mask.from_array(array)
    assert len(mask.counts) < 20_000
    assert mask.area == 4_000_000
    assert mask.box == (1000, 500, 3000, 2500)


def test_masks_of_two_pictures_cannot_be_compared() -> None:
    with pytest.raises(MaskError, match=r"4x3 and 3x4"):
        Mask.from_array(np.ones((3, 4), bool)).iou([Mask.from_array(np.ones((4, 3), bool))])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3), np.uint8),
        np.zeros((2, 3), np.float32),
        np.zeros((2, 3, 1), bool),
        np.zeros(6, bool),
        np.array(True),
        [[True, False]],
        None,
    ],
    ids=lambda value: f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else type(value).__name__,
)
def test_other_arrays_are_refused(array: Any) -> None:
    with pytest.raises(MaskError, match=r"Got .*; wanted a boolean array"):
        Mask.from_array(array)


BROKEN: dict[str, Any] = {
    "not a mapping": [1, 2],
    "nothing": None,
    "empty": {},
    "no counts": {"size": [2, 2]},
    "no size": {"counts": [4]},
    "size of one number": {"size": [4], "counts": [4]},
    "size of three numbers": {"size": [2, 2, 1], "counts": [4]},
    "size not numbers": {"size": ["a", "b"], "counts": [4]},
    "negative size": {"size": [-2, -2], "counts": [4]},
    "sum too small": {"size": [2, 2], "counts": [3]},
    "sum too large": {"size": [2, 2], "counts": [3, 2]},
    "no runs": {"size": [2, 2], "counts": []},
    "negative run": {"size": [2, 2], "counts": [-1, 5]},
    "fractional runs": {"size": [2, 2], "counts": [1.5, 2.5]},
    "runs as text": {"size": [2, 2], "counts": ["4"]},
    "run too long": {"size": [10**6, 10**6], "counts": [10**12]},
    "counts null": {"size": [2, 2], "counts": None},
    "counts a number": {"size": [2, 2], "counts": 4},
    "counts a mapping": {"size": [2, 2], "counts": {}},
    "counts not ASCII": {"size": [2, 2], "counts": "é"},
    "compressed, not run lengths": {"size": [2, 2], "counts": "!!!"},
    "compressed, none": {"size": [2, 2], "counts": ""},
    "compressed, too few pixels": {"size": [2, 2], "counts": "1"},
    "compressed, too many pixels": {"size": [2, 2], "counts": "99999"},
    "compressed, of another size": {"size": [6, 8], "counts": "04"},
}


@pytest.mark.parametrize("rle", BROKEN.values(), ids=BROKEN)
def test_broken_run_lengths_are_refused_at_once(rle: Any) -> None:
    with pytest.raises(MaskError, match="wanted"):
        Mask.from_coco(rle)


@given(set_masks, st.data())
def test_damaged_counts_are_refused_or_a_whole_mask(mask: Mask, data: st.DataObject) -> None:
    """A changed or missing character either is a mask of that size, consistent in itself, or a MaskError."""
    counts = bytearray(mask.counts)
    at = data.draw(st.integers(0, len(counts) - 1))
    counts[at : at + 1] = data.draw(st.sampled_from([b"", b"0", b"1", b"n", b"\x7f", b"O"]))
    try:
        found = Mask.from_coco({"size": [mask.height, mask.width], "counts": counts.decode("ascii")})
    except MaskError:
        return
    assert found.array.shape == (mask.height, mask.width)
    assert found.area == found.array.sum()
    assert found.box == numpy_box(found.array)


@pytest.mark.parametrize("size", [[2**33, 2], [2, 2**33], [2**32, 2**32], [0, 7], [7, 0]])
def test_an_absurd_size_is_refused_and_does_not_end_the_process(size: list[int]) -> None:
    """In a process of its own: sizes beyond 32 bits once ended it with a signal."""
    program = (
        "import sys, json; from pam_core.masks import Mask, MaskError\n"
        "try:\n    m = Mask.from_coco(json.loads(sys.argv[1])); m.area, m.box\n"
        "except MaskError:\n    pass\n"
    )
    rle = json.dumps({"size": size, "counts": "04"})
    done = subprocess.run([sys.executable, "-c", program, rle], capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
