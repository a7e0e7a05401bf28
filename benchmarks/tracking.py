"""What tracking several objects costs beside tracking one, a frame: SAM 2 at a published size, random weights.

    make pam-python ARGS="benchmarks/tracking.py --size tiny --objects 4"

Both track objects through the same made-up frames in turn, after their memories are full. The last line is one
JSON object; its times are medians of the frames measured.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable

import numpy as np
import torch

from pam_core.pam.config import SAM2_SIZES
from pam_core.pam.prompt_tensors import prompt_batches
from pam_core.pam.tracking import SamTracker
from pam_core.pam.vision import VisionTower, preprocess
from pam_core.types import Prompt

WARM = 8
"""Frames after which the memories an object attends to grow no more, but for pointers, which are small."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--size", choices=sorted(SAM2_SIZES), default="tiny")
    parser.add_argument("--objects", type=int, default=4)
    parser.add_argument("--frames", type=int, default=5, help="frames measured, after the memories are full")
    args = parser.parse_args()

    torch.manual_seed(0)
    vision = VisionTower(SAM2_SIZES[args.size]).eval()
    trackers = {count: SamTracker(vision) for count in (1, args.objects)}
    picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    pixels = preprocess(picture, vision.config.image_size)[None]
    phases: dict[int, dict[str, list[float]]] = {count: {} for count in trackers}

    def timed(count: int, phase: str, run: Callable[[], object]) -> object:
        started = time.process_time(), time.perf_counter()
        out = run()
        for clock, before, after in zip(
            ("cpu_s", "wall_s"), started, (time.process_time(), time.perf_counter()), strict=True
        ):
            phases[count].setdefault(f"{phase} {clock}", []).append(after - before)
        return out

    with torch.inference_mode():
        for count, tracker in trackers.items():
            clicks = [Prompt.at(640 * (n + 0.5) / count, 240) for n in range(count)]
            ((_, prompts),) = prompt_batches(clicks, 640, 480, vision.config.image_size)
            tracker.prompt(vision.encode(pixels), list(range(count)), prompts)
        for frame in range(WARM + args.frames):
            for count, tracker in trackers.items():
                features = timed(count, "encode", lambda: vision.encode(pixels))
                timed(count, "track", lambda tracker=tracker, features=features: tracker.step(features))
            print(f"frame {frame + 1} of {WARM + args.frames}", flush=True)
    middle = {
        count: {name: float(np.median(times[WARM:])) for name, times in of_count.items()}
        for count, of_count in phases.items()
    }
    total = {
        count: {clock: of[f"encode {clock}"] + of[f"track {clock}"] for clock in ("wall_s", "cpu_s")}
        for count, of in middle.items()
    }
    figures = {
        "benchmark": "tracking",
        "size": args.size,
        "objects": args.objects,
        "threads": torch.get_num_threads(),
        "wall_ratio": round(total[args.objects]["wall_s"] / total[1]["wall_s"], 2),
        "cpu_ratio": round(total[args.objects]["cpu_s"] / total[1]["cpu_s"], 2),
        "seconds": {
            str(count): {name: round(value, 2) for name, value in of.items()} for count, of in middle.items()
        },
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
