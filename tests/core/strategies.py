"""Hypothesis strategies for masks, prompts and regions."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pam_core.masks import Mask
from pam_core.types import Feedback, ModelRef, Perception, Prompt, Region, Verdict

sides = st.integers(1, 24)
shapes = st.tuples(sides, sides)


def noise(shape: tuple[int, int]) -> st.SearchStrategy[np.ndarray]:
    return npst.arrays(bool, shape)


def blobs(shape: tuple[int, int]) -> st.SearchStrategy[np.ndarray]:
    """A filled box somewhere: long runs, as real masks have them."""
    height, width = shape

    def fill(corners: tuple[int, int, int, int]) -> np.ndarray:
        x1, y1, x2, y2 = corners
        array = np.zeros(shape, bool)
        array[min(y1, y2) : max(y1, y2), min(x1, x2) : max(x1, x2)] = True
        return array

    xs, ys = st.integers(0, width), st.integers(0, height)
    return st.tuples(xs, ys, xs, ys).map(fill)


def arrays_of(shape: tuple[int, int]) -> st.SearchStrategy[np.ndarray]:
    flat = st.booleans().map(lambda value: np.full(shape, value))
    return st.one_of(flat, blobs(shape), noise(shape))


arrays = shapes.flatmap(arrays_of)
masks = arrays.map(Mask.from_array)
set_masks = masks.filter(lambda mask: mask.area > 0)

coordinates = st.floats(0, 1e5, allow_nan=False)
points = st.tuples(coordinates, coordinates)
boxes = st.tuples(coordinates, coordinates, coordinates, coordinates).filter(lambda b: b[0] < b[2] and b[1] < b[3])


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    clicks = tuple(draw(st.lists(points, max_size=4)))
    labels = tuple(draw(st.integers(0, 1)) for _ in clicks)
    box = draw(st.none() | boxes)
    mask = draw(st.none() | set_masks)
    if box is None and mask is None:
        clicks, labels = (*clicks, draw(points)), (*labels, 1)
    return Prompt(clicks, labels, box, mask)


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    [
        "",
        "a 'quoted' \"word\"",
        "两行\n文字",
        "🐈‍⬛ black cat",
        "tab\there\r\nand there",
        "\u2028\u2029\x85",
        "\\n",
        "</script>",
        "\x00",
    ]
)
texts = st.dictionaries(words, st.dictionaries(st.sampled_from(["en", "zh"]), words, max_size=2), max_size=3)
fractions = st.none() | st.floats(0, 1)
models = st.builds(ModelRef, words, words, words)
regions = st.builds(
    Region,
    mask=masks,
    model=models,
    prompt=st.none() | prompts(),
    predicted_iou=fractions,
    stability=fractions,
    presence=fractions,
    texts=texts,
    scores=st.dictionaries(words, st.floats(0, 1), max_size=2),
    track_id=st.none() | st.integers(0, 2**40),
    frame=st.none() | st.integers(0, 2**40),
    time=st.none() | st.floats(0, 1e6),
)
perceptions = st.builds(
    Perception,
    image=words,
    width=st.integers(0, 10**5),
    height=st.integers(0, 10**5),
    model=models,
    regions=st.lists(regions, max_size=3).map(tuple),
    run=words,
    seconds=st.dictionaries(words, st.floats(0, 1e6), max_size=2),
    error=st.none() | words,
)
feedbacks = st.builds(
    Feedback,
    image=words,
    region=regions,
    verdict=st.sampled_from(Verdict),
    correction=st.none() | regions,
    source=words,
)
