"""A real FiftyOne on a real MongoDB, both of this package of tests only, on loopback, in a folder of its own.

FiftyOne reads its settings and connects when it is imported: tests import it in their bodies, never on top.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.mongod import Mongod
from tests.factories import FakePlugin, shapes, write_picture
from tests.fake_video import FakeSource, Square
from tests.fiftyone_plugin.made_videos import BLUE, RED, MakeVideos, box
from tests.paths import ROOT
from tests.videos import write_video

if TYPE_CHECKING:
    import fiftyone as fo

URI = "@pam/regions"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here starts real servers."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session", autouse=True)
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A MongoDB and the environment variables that make FiftyOne use it and nothing of the user's."""
    home = tmp_path_factory.mktemp("fiftyone")
    plugins = home / "plugins"
    plugins.mkdir()
    (plugins / "pam").symlink_to(ROOT / "fiftyone_plugin")
    with Mongod(home) as uri, pytest.MonkeyPatch.context() as patch:
        settings = {
            "FIFTYONE_DATABASE_URI": uri,
            "FIFTYONE_DATABASE_VALIDATION": "false",
            "FIFTYONE_DATABASE_NAME": "pam_tests",
            "FIFTYONE_DO_NOT_TRACK": "true",
            "FIFTYONE_PLUGINS_DIR": str(plugins),
            "FIFTYONE_SHOW_PROGRESS_BARS": "false",
            "FIFTYONE_MODEL_ZOO_DIR": str(home / "zoo"),
            "FIFTYONE_DEFAULT_DATASET_DIR": str(home / "datasets"),
            "FIFTYONE_DATASET_ZOO_DIR": str(home / "dataset_zoo"),
            "FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS": "true",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "core")]),
            "NO_PROXY": "127.0.0.1,localhost",
        }
        for name, value in settings.items():
            patch.setenv(name, value)
        yield {**os.environ, "HOME": str(home)}


@pytest.fixture
def fake() -> Iterator[FakePlugin]:
    """The plugin that brings the model `fake`, registered for one test."""
    with _registered(FakePlugin()) as plugin:
        yield plugin


@pytest.fixture
def fake_video() -> Iterator[FakePlugin]:
    """The plugin that brings the model `fake-video`, which tracks colours, registered for one test."""
    from tests.fake_video import FakeVideoModel

    with _registered(FakePlugin(FakeVideoModel())) as plugin:
        yield plugin


@contextmanager
def _registered(plugin: FakePlugin) -> Iterator[FakePlugin]:
    from pam_core.engine.cache import shared_cache
    from pam_plugins import plugins
    from pam_plugins.plugins import get_plugins

    plugins._loaded.clear()
    shared_cache.clear()
    with get_plugins().registered(plugin, "fake"):
        yield plugin
    plugins._loaded.clear()


MakeDataset = Callable[..., "fo.Dataset"]


@pytest.fixture
def make_dataset(tmp_path: Path) -> Iterator[MakeDataset]:
    """`make_dataset(count)`: pictures of three coloured shapes each, their boxes as Detections in `boxes`."""
    import fiftyone as fo

    made: list[Any] = []

    def make(count: int = 4, *, boxes: bool = True) -> fo.Dataset:
        dataset = fo.Dataset()
        made.append(dataset)
        samples = []
        for index in range(count):
            picture, known = shapes(120, 90, 3)
            picture[0, :, 0] = index  # no two alike: the cache knows pictures by their content
            sample = fo.Sample(filepath=str(write_picture(tmp_path / f"{len(made)}_{index}.png", picture)))
            if boxes:
                sample["boxes"] = fo.Detections(
                    detections=[
                        fo.Detection(label="thing", bounding_box=relative(shape.box, 120, 90)) for shape in known
                    ]
                )
            samples.append(sample)
        dataset.add_samples(samples)
        return dataset

    yield make
    for dataset in made:
        if not dataset.deleted:
            dataset.delete()


def relative(box: tuple[float, float, float, float], width: int, height: int) -> list[float]:
    """A pixel box xyxy as FiftyOne's [x, y, width, height] in shares of the picture."""
    x1, y1, x2, y2 = box
    return [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]


@pytest.fixture
def make_videos(tmp_path: Path) -> Iterator[MakeVideos]:
    """`make_videos(2)`: a dataset of videos of 40 frames in which a red and a blue square are seen.

    With `boxes`, frame 1 has a box around each in `boxes`.
    """
    import fiftyone as fo

    made: list[fo.Dataset] = []

    def make(count: int = 2, squares: Sequence[Square] = (RED, BLUE), frames: int = 40, boxes: bool = True) -> Any:
        dataset = fo.Dataset()
        made.append(dataset)
        for number in range(count):
            source = FakeSource(frames, squares)
            pictures = [source.frame(index).picture for index in range(frames)]
            path = write_video(tmp_path / f"{len(made)}_{number}.mp4", pictures)
            sample = fo.Sample(filepath=str(path))
            if boxes:
                sample.frames[1] = fo.Frame(boxes=fo.Detections(detections=[box(square, 0) for square in squares]))
            dataset.add_sample(sample)
        return dataset

    yield make
    for dataset in made:
        if not dataset.deleted:
            dataset.delete()
