"""Made-up videos as datasets, and what tracking writes into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from tests.factories import FakePlugin
from tests.fake_video import FakeVideoModel, Square, steady

if TYPE_CHECKING:
    import fiftyone as fo

RED = Square("red", steady(8, 8, dx=0.5))
BLUE = Square("blue", steady(40, 28))
MakeVideos = Callable[..., "fo.Dataset"]


def box(square: Square, at: int, **attributes: Any) -> Any:
    """A box around a square on the frame `at` (from 0), two pixels wider on each side."""
    import fiftyone as fo

    place = square.path(at)
    assert place is not None
    x, y = place
    bounding_box = [(x - 2) / 64, (y - 2) / 48, (square.side + 4) / 64, (square.side + 4) / 48]
    return fo.Detection(**{"label": square.colour, "bounding_box": bounding_box, **attributes})


def execute(view: Any, **params: Any) -> dict[str, Any]:
    """Run the operator and return what the dataset has on record of the run."""
    import fiftyone.operators as foo

    from fiftyone_plugin.videos import VideoProgress
    from tests.fiftyone_plugin.conftest import URI

    context = {"view": view.view(), "params": {"model": "fake-video", "prompt_field": "boxes", **params}}
    foo.execute_operator(f"{URI}/track_and_caption", context)
    view._dataset.reload()
    results = view._dataset.load_run_results(f"pam_{params.get('field', 'tracks')}", cache=False)
    return {each.name: getattr(results, each.name) for each in fields(VideoProgress)}


def by_track(sample: Any, field: str = "tracks") -> dict[int, dict[int, Any]]:
    """The labels of a video by track id and frame number."""
    found: dict[int, dict[int, Any]] = {}
    for number, frame in sample.frames.items():
        for label in frame[field].detections if frame[field] else ():
            found.setdefault(label.index, {})[number] = label
    return found


def model_of(plugin: FakePlugin) -> FakeVideoModel:
    assert isinstance(plugin.model, FakeVideoModel)
    return plugin.model
