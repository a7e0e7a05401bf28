"""What keeping freed memory is worth (pam_core.allocator): `lite` on new pictures in two processes, in turn.

    make pam-python ARGS="benchmarks/allocator.py --pictures 30"

One click and all texts on each picture. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from pam_core.allocator import keep_freed_memory
from pam_core.media.images import read_picture
from pam_core.types import Prompt
from pam_plugins.api import perceive

PHOTOS = Path(__file__).parent.parent / "tests" / "data" / "photos"
WARM = 3


def work() -> None:
    """Perceive the pictures named on standard input, one a line; answer each with a line of JSON."""
    for line in sys.stdin:
        picture = read_picture(Path(line.strip()))
        height, width = picture.shape[:2]
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        perceive(picture, [Prompt.at(width / 2, height / 2)], model="lite")
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
        faults = after.ru_minflt - before.ru_minflt
        print(json.dumps({"ms": 1000 * seconds, "faults": faults, "peak_mb": after.ru_maxrss / 1024}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--pictures", type=int, default=30)
    parser.add_argument("--work", choices=["kept", "given_back"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        if args.work == "kept":
            keep_freed_memory()
        work()
        return
    rows: dict[str, list[dict]] = {"kept": [], "given_back": []}
    workers = {
        name: subprocess.Popen(
            [sys.executable, __file__, "--work", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in rows
    }
    for number, photo in enumerate(islice(cycle(sorted(PHOTOS.glob("*.jpg"))), WARM + args.pictures)):
        for name in rows if number % 2 else reversed(rows):
            to, answers = workers[name].stdin, workers[name].stdout
            assert to is not None and answers is not None
            print(photo, file=to, flush=True)
            rows[name].append(json.loads(answers.readline()))
        print(f"picture {number + 1} of {WARM + args.pictures}", flush=True)
    for worker in workers.values():
        worker.communicate()
    figures: dict[str, object] = {"benchmark": "allocator", "model": "lite", "pictures": args.pictures}
    totals = {name: sum(row["ms"] for row in each[WARM:]) for name, each in rows.items()}
    figures["ratio"] = round(totals["kept"] / totals["given_back"], 3)
    for name, each in rows.items():
        times, faults = ([row[what] for row in each[WARM:]] for what in ("ms", "faults"))
        for percent in (50, 95):
            figures[f"{name}_ms_p{percent}"] = round(float(np.percentile(times, percent)))
        figures[f"{name}_faults_p50"] = round(float(np.median(faults)))
        figures[f"{name}_peak_mb"] = round(each[-1]["peak_mb"])
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
