"""A process that enriches a dataset and can be killed: `python enrich_process.py DATASET LOG MODEL SECONDS`.

MODEL is `fake`, the made-up one, which takes SECONDS for a picture, or `lite`. Every picture that is embedded adds a
line to LOG.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import fiftyone as fo

from fiftyone_plugin.images import ImageRequest, ImageRun
from pam_core.questions import ImageEmbedding
from pam_core.types import Picture
from pam_plugins.options import Options
from pam_plugins.plugins import get_plugins, load_model
from tests.factories import FakeModel, FakePlugin


def main(name: str, log: Path, model_name: str, seconds: float) -> None:
    dataset = fo.load_dataset(name)
    with get_plugins().registered(FakePlugin(FakeModel(seconds=seconds)), "fake"):
        enrich(dataset, log, model_name)


def enrich(dataset: fo.Dataset, log: Path, model_name: str) -> None:
    model = load_model(model_name)
    embed = model.embed

    def logged(pictures: Sequence[Picture]) -> Sequence[ImageEmbedding]:
        with log.open("a") as lines:
            lines.writelines(f"{each[0, 0].tolist()}{each.shape}{int(each.sum())}\n" for each in pictures)
        return embed(pictures)

    model.embed = logged  # type: ignore[method-assign]
    request = ImageRequest(prompt_field="boxes", model=model_name, options=Options(tasks=("label", "brief")))
    for _ in ImageRun(dataset, request).steps(model):
        pass


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
