"""How well `lite` follows objects: made-up videos with known masks (made_up_videos.py).

    make pam-python ARGS="benchmarks/video_lite.py --seed 1"

Every object is given as its mask on the first frame. J is the mean IoU over the later frames on which it can be seen.
A crossing is kept where both objects, and a comeback found where the object, have a mean IoU of a half or more over
the last five frames. "Absent" is the share of frames on which an object that cannot be seen is claimed to be there.
Only the tracker is timed. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections import defaultdict
from itertools import islice

import numpy as np
import torch

from benchmarks.made_up_videos import KINDS, MadeUpVideo, photo_cut_outs, videos
from pam_plugins.models.lite.model import load
from pam_plugins.models.lite.tracker import LiteTracker

KEPT = 0.5
LAST = 5
CROSSING = ("crossing",)
COMING_BACK = ("comeback", "behind")


def follow(tracker: LiteTracker, video: MadeUpVideo) -> tuple[np.ndarray, np.ndarray]:
    """IoUs (objects, frames - 1), not a number where an object cannot be seen; and where it was claimed to be."""
    tracker.add(video.frames[0], video.prompts())
    ious = np.full((len(video.masks), len(video.frames) - 1), np.nan)
    claimed = np.zeros(ious.shape, bool)
    for frame in video.frames[1:]:
        for row, region in enumerate(tracker.step(frame)):
            mask, known = region.mask.array, video.masks[row, frame.index]
            claimed[row, frame.index - 1] = mask.any()
            if known.any():
                ious[row, frame.index - 1] = (mask & known).sum() / (mask | known).sum()
    return ious, claimed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seed", type=int, default=0, help="no setting was chosen on 24 to 26")
    parser.add_argument("--every", type=int, default=1, help="take only each n-th video")
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="take only videos of these kinds")
    parser.add_argument("--side", type=int, default=512, help="of the encoder's picture in pixels")
    args = parser.parse_args()
    model = load("cpu")
    photo_cut_outs()
    per_object: dict[str, list[float]] = defaultdict(list)
    kept: dict[str, list[bool]] = defaultdict(list)
    false_claims: list[bool] = []
    frames = objects = 0
    seconds = 0.0
    for video in islice(videos(args.seed, args.kind or tuple(KINDS)), 0, None, args.every):
        started = time.process_time()
        ious, claimed = follow(LiteTracker(model.segmenter, model.recognizer, model.info.ref, side=args.side), video)
        seconds += time.process_time() - started
        frames += ious.shape[1]
        objects += ious.size
        per_object[video.kind] += np.nanmean(ious, axis=1).tolist()
        kept[video.kind].append(bool((np.nanmean(ious[:, -LAST:], axis=1) >= KEPT).all()))
        false_claims += claimed[np.isnan(ious)].tolist()
        print(f"{video.kind:10} {' and '.join(video.names):24} J {np.nanmean(ious):.3f} kept {kept[video.kind][-1]}")
    figures = {
        "benchmark": "video_lite",
        "seed": args.seed,
        "every": args.every,
        "side": args.side,
        "videos": sum(len(of_kind) for of_kind in kept.values()),
        "frames": frames,
        "J": _mean([j for of_kind in per_object.values() for j in of_kind]),
        "J_by_kind": {kind: _mean(of_kind) for kind, of_kind in per_object.items()},
        "crossings_kept": _counted([ok for kind in CROSSING for ok in kept[kind]]),
        "comebacks_found": _counted([ok for kind in COMING_BACK for ok in kept[kind]]),
        "claimed_while_absent": _mean(false_claims),
        "threads": torch.get_num_threads(),
        "cpu_ms_per_frame": round(1000 * seconds / frames),
        "cpu_ms_per_object_and_frame": round(1000 * seconds / objects),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    print(json.dumps(figures))


def _mean(values: list[float] | list[bool]) -> float | None:
    return round(float(np.mean(values)), 3) if values else None


def _counted(values: list[bool]) -> str:
    return f"{sum(values)} of {len(values)}"


if __name__ == "__main__":
    main()
