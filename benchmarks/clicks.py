"""How often `lite` is right: annotated clicks in real photographs (tests/data/clicks.jsonl).

    make pam-python ARGS="benchmarks/clicks.py --split dev --list"

A label is right if it is one of the accepted words or ends with one. The mask is judged by the IoU of its tight box
with the annotated box. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from pam_core.media.images import read_picture
from pam_core.types import Prompt, Region
from pam_plugins.api import perceive
from pam_plugins.models.lite.naming import box_iou
from pam_plugins.options import Options

DATA = Path(__file__).parent.parent / "tests" / "data"


def is_accepted(label: str, accepted: list[str]) -> bool:
    """Whether a label is one of the accepted words, or has one as its head noun."""
    label = label.lower()
    return any(label == word or label.endswith(f" {word}") for word in accepted)


def read_clicks(split: str | None = None) -> dict[str, list[dict]]:
    """The annotated clicks by photo, of one split or of both."""
    clicks: dict[str, list[dict]] = defaultdict(list)
    for line in (DATA / "clicks.jsonl").read_text(encoding="utf-8").splitlines():
        click = json.loads(line)
        if split is None or click["split"] == split:
            clicks[click["photo"]].append(click)
    return dict(clicks)


def evaluate(clicks: dict[str, list[dict]]) -> list[tuple[dict, Region, bool, float]]:
    """Every click with its region, whether the label is right, and the IoU of the boxes. One click at a time."""
    judged = []
    for photo, of_photo in clicks.items():
        picture = read_picture(DATA / "photos" / photo)
        for click in of_photo:
            answer = perceive(picture, [Prompt.at(*click["point"])], model="lite", options=Options(tasks=("label",)))
            region = answer.regions[0]
            iou = box_iou(region.box, tuple(click["box"]))
            judged.append((click, region, is_accepted(region.label or "", click["accept"]), iou))
    return judged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--split", choices=["dev", "held-out"], help="both if left out")
    parser.add_argument("--list", action="store_true", help="print every click")
    args = parser.parse_args()
    judged = evaluate(read_clicks(args.split))
    if args.list:
        for click, region, right, iou in judged:
            mark = "ok   " if right else "WRONG"
            score = region.scores["label"]
            print(f"{mark} {iou:.2f} {click['photo']:20} {click['object']:20} -> {region.label} {score:.2f}")
    ious = np.array([iou for *_, iou in judged])
    scores = np.array([region.scores["label"] for _, region, _, _ in judged])
    right = np.array([right for _, _, right, _ in judged])
    figures = {
        "benchmark": "clicks",
        "split": args.split or "both",
        "photos": len({click["photo"] for click, *_ in judged}),
        "clicks": len(judged),
        "label_top1": round(float(right.mean()), 3),
        "mean_score": round(float(scores.mean()), 3),
        "box_iou_mean": round(float(ious.mean()), 3),
        "box_iou_over_0.5": round(float((ious > 0.5).mean()), 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
