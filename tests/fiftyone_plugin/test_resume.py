"""A run that is killed and started again gives what an undisturbed one gives: many pictures with a made-up model, a
few photographs with the real `lite`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.factories import shapes, write_picture
from tests.fiftyone_plugin.conftest import URI, relative
from tests.paths import DATA

MakePictures = Callable[[Path, int], list[tuple[Path, list[float]]]]
PROCESS = Path(__file__).with_name("enrich_process.py")
SECONDS = 0.15
"""What the made-up model takes for a picture where it is killed: two of them until results are saved."""


def make_drawings(folder: Path, count: int) -> list[tuple[Path, list[float]]]:
    """Coloured shapes, each picture with the box of one of them in shares of the picture."""
    made = []
    for number in range(count):
        picture, known = shapes(120, 90, 2 + number % 6)
        picture[0, 0] = (number, 0, 0)  # no two alike
        path = write_picture(folder / f"{number:03}.png", picture)
        made.append((path, relative(known[number % len(known)].box, 120, 90)))
    return made


def make_photographs(folder: Path, count: int) -> list[tuple[Path, list[float]]]:
    """Small cuts of the annotated photographs, each with the box of one click in shares of the picture."""
    folder.mkdir()
    clicks = [json.loads(line) for line in (DATA / "clicks.jsonl").read_text().splitlines()]
    made = []
    for number in range(count):
        click = clicks[number % len(clicks)]
        with Image.open(DATA / "photos" / click["photo"]) as opened:
            photo = opened.convert("RGB")
        x1, y1, x2, y2 = click["box"]
        box = [x1 / photo.width, y1 / photo.height, (x2 - x1) / photo.width, (y2 - y1) / photo.height]
        photo.thumbnail((256, 256))
        if number >= len(clicks):
            photo = ImageOps.mirror(photo)
            box[0] = max(0.0, 1 - box[0] - box[2])
        photo.putpixel((0, 0), (number, 0, 0))  # no two alike
        path = folder / f"{number:03}.png"
        photo.save(path)
        made.append((path, box))
    return made


def make_dataset(pictures: list[tuple[Path, list[float]]], name: str) -> Any:
    import fiftyone as fo

    dataset = fo.Dataset(name, persistent=True)
    samples = [fo.Sample(filepath=str(path)) for path, _ in pictures]
    for sample, (_, box) in zip(samples, pictures, strict=True):
        sample["boxes"] = fo.Detections(detections=[fo.Detection(label="thing", bounding_box=box)])
    dataset.add_samples(samples)
    return dataset


def start(name: str, log: Path, model: str, host: dict[str, str], seconds: float = 0.0) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(PROCESS), name, str(log), model, str(seconds)]
    return subprocess.Popen(command, env={**host, "OMP_NUM_THREADS": "1"})


def contents(dataset: Any) -> list[Any]:
    """All that a run wrote, without ids and times."""
    dataset.reload()
    found = []
    for sample in dataset:
        regions = sample["regions"].detections if sample["regions"] else []
        found.append(
            (
                sample.filepath,
                sample["regions_run"],
                sample["regions_error"],
                [what(label) for label in regions],
            )
        )
    return found


def what(label: Any) -> tuple[Any, ...]:
    mask = np.packbits(label.mask).tobytes()
    return (label.label, label.bounding_box, mask, label.confidence, sorted(label.iter_attributes()))


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("model", "make", "count"), [("fake", make_drawings, 200), ("lite", make_photographs, 6)])
def test_killed_in_the_middle_and_on_again(
    tmp_path: Path, host: dict[str, str], model: str, make: MakePictures, count: int
) -> None:
    pictures = make(tmp_path / "pictures", count)
    whole, killed = make_dataset(pictures, "whole"), make_dataset(pictures, "killed")
    try:
        undisturbed = start("whole", tmp_path / "whole.log", model, host)
        assert undisturbed.wait(400) == 0
        log = tmp_path / "killed.log"
        process = start("killed", log, model, host, SECONDS)
        while not log.exists() or len(log.read_text().splitlines()) < count // 3:
            assert process.poll() is None, "ended before it could be killed"
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        killed.reload()
        saved = killed.exists("regions_run").count()
        perceived = len(log.read_text().splitlines())
        assert 0 < saved < count
        assert start("killed", log, model, host).wait(400) == 0

        lines = Counter(log.read_text().splitlines())
        assert sum(lines.values()) == count + perceived - saved  # only what was not saved is done again
        assert perceived - saved <= 3
        assert len(lines) == count
        assert Counter((tmp_path / "whole.log").read_text().splitlines()) == Counter(list(lines))
        assert contents(killed) == contents(whole)
        assert killed.count("regions.detections") == count
        assert killed.exists("regions_error").count() == 0
    finally:
        whole.delete()
        killed.delete()


@pytest.mark.timeout(600)
def test_delegated_and_launched(tmp_path: Path, host: dict[str, str]) -> None:
    """Scheduled from one process, carried out by `fiftyone delegated launch` in another."""
    import fiftyone.operators as foo
    from fiftyone.operators import delegated

    dataset = make_dataset(make_photographs(tmp_path / "pictures", 3), "scheduled")
    try:
        operator = foo.get_operator(f"{URI}/perceive_regions")
        queued = operator(dataset, delegate=True, prompt_field="boxes", model="lite", tasks=["label"])
        command = [str(Path(sys.executable).with_name("fiftyone")), "delegated", "launch"]
        launcher = subprocess.Popen(command, env={**host, "OMP_NUM_THREADS": "1"})
        try:
            service = delegated.DelegatedOperationService()
            deadline = time.monotonic() + 400
            while (document := service.get(queued["id"])).run_state not in ("completed", "failed"):
                assert launcher.poll() is None, "the launcher ended"
                assert time.monotonic() < deadline, document.run_state
                time.sleep(0.5)
        finally:
            launcher.terminate()
            launcher.wait(60)
        assert document.run_state == "completed", document.result
        assert document.status.progress == 1.0
        assert "3 of 3 samples" in document.status.label
        dataset.reload()
        assert dataset.count("regions.detections") == 3
        assert dataset.load_run_results("pam_regions").perceived == 3
    finally:
        dataset.delete()
