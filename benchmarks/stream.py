"""Time per frame and resident memory over a long stream: do they stay flat?

    make pam-python ARGS="benchmarks/stream.py --frames 5000 --objects 2"

Discs of different colours move over a noisy ground, each frame made on demand. A frame's time is all that
the session does with it: the tracker, the events, the results; captions are made beside it. The last line is one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator

import cv2
import numpy as np
import psutil

from pam_core.sessions.session import StreamSession
from pam_core.types import Prompt
from pam_core.video import Fault, Frame, FrameResult, TrackEvent
from pam_plugins.plugins import load_model

WARM, SPAN, FPS = 500, 500, 25.0
COLOURS = ((220, 40, 40), (40, 90, 220), (40, 180, 60), (230, 200, 40), (170, 60, 200), (40, 200, 210))


class Discs:
    """Frames of moving discs. `seconds` holds how long each frame kept the session busy."""

    def __init__(self, frames: int, objects: int, width: int) -> None:
        self.frames, self.objects = frames, objects
        self.width, self.height = width, width * 3 // 4
        self.radius = max(4, self.height // (2 * objects + 4))
        self.ground = np.random.default_rng(0).integers(90, 150, (self.height, self.width, 3), dtype=np.uint8)
        self.seconds: list[float] = []

    def centre(self, number: int, index: int) -> tuple[int, int]:
        """To and fro along a line of its own, each disc at its own pace."""
        reach = self.width / 2 - self.radius - 2
        x = self.width / 2 + reach * math.sin(index / (40 + 17 * number) + number)
        return round(x), round((number + 0.5) * self.height / self.objects)

    def __iter__(self) -> Iterator[Frame | Fault]:
        for index in range(self.frames):
            picture = self.ground.copy()
            for number in range(self.objects):
                colour = COLOURS[number % len(COLOURS)]
                cv2.circle(picture, self.centre(number, index), self.radius, colour, -1, cv2.LINE_AA)
            started = time.perf_counter()
            yield Frame(index, index / FPS, picture)
            self.seconds.append(time.perf_counter() - started)


def milliseconds(seconds: list[float]) -> dict[str, float]:
    return {f"p{share}": round(float(np.percentile(seconds, share)) * 1000, 2) for share in (50, 95)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--objects", type=int, default=2)
    parser.add_argument("--width", type=int, default=320, help="of the pictures, in pixels; the height is 3/4 of it")
    parser.add_argument("--model", default="lite")
    args = parser.parse_args()
    if args.frames < WARM + SPAN:
        parser.error(f"got {args.frames} frames; wanted at least {WARM + SPAN}")
    model = load_model(args.model)
    if not model.info.video:
        parser.error(f"got the model {args.model}, which tracks no objects; `pam models` says which do")

    source = Discs(args.frames, args.objects, args.width)
    process = psutil.Process()
    resident: dict[int, float] = {}
    visible = events = faults = 0
    started = time.perf_counter()
    with StreamSession(model) as session:
        for number in range(args.objects):
            session.prompt(number, Prompt.at(*source.centre(number, 0)), frame=0)
        for result in session.run(source):
            if isinstance(result, FrameResult):
                visible += sum(region.mask.area > 0 for region in result.regions)
                if result.index in (WARM, args.frames - 1):
                    resident[result.index] = round(process.memory_info().rss / 2**20, 1)
            events += isinstance(result, TrackEvent)
            faults += isinstance(result, Fault)
    figures = {
        "benchmark": "stream",
        "model": args.model,
        "frames": args.frames,
        "objects": args.objects,
        "picture": [source.width, source.height],
        "ms_frames_500_to_1000": milliseconds(source.seconds[WARM : WARM + SPAN]),
        "ms_last_500_frames": milliseconds(source.seconds[-SPAN:]),
        "rss_mb_at_frame_500": resident[WARM],
        "rss_mb_at_the_end": resident[args.frames - 1],
        "share_visible": round(visible / (args.frames * args.objects), 3),
        "events": events,
        "faults": faults,
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
