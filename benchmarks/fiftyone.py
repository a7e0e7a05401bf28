"""What FiftyOne adds to each picture: an operator's run beside `pam perceive` on the same pictures and prompts.

    make pam-python ARGS="-m benchmarks.fiftyone --pictures 60"

Both go through the pictures side by side, in turn, in one process; nothing is kept in the cache between them. The
database is a MongoDB of this run alone. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil

from benchmarks.mongod import Mongod

PHOTOS = Path(__file__).parent.parent / "tests" / "data"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--model", default="lite")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, Mongod(Path(home)) as uri:
        os.environ.update(
            FIFTYONE_DATABASE_URI=uri,
            FIFTYONE_DATABASE_VALIDATION="false",
            FIFTYONE_DEFAULT_DATASET_DIR=f"{home}/datasets",
            FIFTYONE_DO_NOT_TRACK="true",
            FIFTYONE_SHOW_PROGRESS_BARS="false",
        )
        print(json.dumps(measure(args.pictures, args.model, Path(home))))


def measure(count: int, model_name: str, home: Path) -> dict[str, object]:
    import fiftyone as fo

    from fiftyone_plugin.images import ImageRequest, ImageRun, SampleSource
    from fiftyone_plugin.run import Samples
    from pam_core.engine.cache import shared_cache
    from pam_plugins import pipeline, plugins
    from pam_plugins.options import Options

    dataset = fo.Dataset()
    dataset.add_samples(samples(count))
    model = plugins.load_model(model_name)
    shared_cache.resize(0)
    for _ in ImageRun(dataset[:1], ImageRequest("warm", "boxes", model=model_name)).steps(model):
        pass
    source = SampleSource(Samples(dataset.view()), "boxes")

    with closing(plugins.sink("jsonl").open(str(home / "results.jsonl"))) as sink:
        plain = pipeline.run(source, [sink], model, Options())
        started = time.perf_counter()
        steps = ImageRun(dataset, ImageRequest("regions", "boxes", model=model_name)).steps(model)
        next(steps)
        setup = time.perf_counter() - started
        seconds: dict[str, list[float]] = {"perceive": [], "fiftyone": []}
        for number in range(count):
            pair = [("perceive", plain), ("fiftyone", steps)]
            for name, work in pair if number % 2 else reversed(pair):
                seconds[name].append(timed(work))
        started = time.perf_counter()
        rest = len(list(steps))
        finish = time.perf_counter() - started
        plain.close()
    assert rest == 0 and dataset.count("regions.detections") == count
    totals = {name: sum(each) for name, each in seconds.items()}
    figures: dict[str, object] = {
        "benchmark": "fiftyone",
        "model": model_name,
        "pictures": count,
        "overhead": round((totals["fiftyone"] + finish) / totals["perceive"] - 1, 4),
        "overhead_with_setup": round((totals["fiftyone"] + finish + setup) / totals["perceive"] - 1, 4),
        "setup_ms": round(1000 * setup),
        "finish_ms": round(1000 * finish),
        "rss_mb_peak": round(psutil.Process().memory_info().rss / 2**20),
    }
    for name, each in seconds.items():
        for percent in (50, 95):
            figures[f"{name}_ms_p{percent}"] = round(1000 * float(np.percentile(each, percent)), 1)
    return figures


def samples(count: int) -> Iterator[object]:
    """The annotated photographs, one click's box in each."""
    import fiftyone as fo
    from PIL import Image

    clicks = [json.loads(line) for line in (PHOTOS / "clicks.jsonl").read_text().splitlines()]
    for number in range(count):
        click = clicks[number % len(clicks)]
        path = PHOTOS / "photos" / click["photo"]
        with Image.open(path) as photo:
            width, height = photo.size
        x1, y1, x2, y2 = click["box"]
        box = [x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height]
        yield fo.Sample(
            filepath=str(path), boxes=fo.Detections(detections=[fo.Detection(label="thing", bounding_box=box)])
        )


def timed(work: Iterator[object]) -> float:
    started = time.perf_counter()
    next(work)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
