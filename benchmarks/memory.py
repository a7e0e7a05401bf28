"""Resident memory over many perceptions in one process, with pictures that push each other out of the cache.

    make pam-python ARGS="benchmarks/memory.py --clicks 1000 --pictures 3"

`--cache-mb` bounds the cache of embeddings; small, every picture is embedded anew. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import cycle, islice
from pathlib import Path

import psutil

from pam_core.engine.cache import shared_cache
from pam_core.media.images import read_picture
from pam_core.types import Prompt
from pam_plugins.api import perceive

PHOTOS = Path(__file__).parent.parent / "tests" / "data" / "photos"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--clicks", type=int, default=1000)
    parser.add_argument("--pictures", type=int, default=3)
    parser.add_argument("--cache-mb", type=int, default=1024)
    parser.add_argument("--model", default="lite")
    args = parser.parse_args()
    shared_cache.resize(args.cache_mb * 2**20)
    pictures = [read_picture(path) for path in sorted(PHOTOS.glob("*.jpg"))[: args.pictures]]
    process, resident, started = psutil.Process(), [], time.perf_counter()
    for number, picture in enumerate(islice(cycle(pictures), args.clicks)):
        height, width = picture.shape[:2]
        step = number % 97 / 97
        perceive(picture, [Prompt.at(width * (0.1 + 0.8 * step), height * (0.9 - 0.8 * step))], model=args.model)
        resident.append(process.memory_info().rss / 2**20)
    warm = max(1, args.clicks // 10)
    figures = {
        "benchmark": "memory",
        "model": args.model,
        "clicks": args.clicks,
        "pictures": args.pictures,
        "cache_mb": args.cache_mb,
        "cache_misses": shared_cache.stats.misses,
        "rss_mb_after_a_tenth": round(resident[warm - 1]),
        "rss_mb_at_the_end": round(resident[-1]),
        "rss_mb_peak": round(max(resident)),
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
