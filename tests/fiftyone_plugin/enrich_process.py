"""A process that enriches a dataset and can be killed: `python enrich_process.py DATASET LOG MODEL SECONDS`.

MODEL is `fake`, the made-up one, which takes SECONDS for a picture, or `lite`. Every picture that the model looks at
adds a line to LOG.
"""

from __future__ import annotations

import sys
from pathlib import Path

import fiftyone as fo

from fiftyone_plugin.work import Request, Work
from pam_core.contracts import ImageEmbedding, Picture
from pam_plugins import registry
from pam_plugins.api import Options
from pam_plugins.plugins import get_plugins
from tests.factories import FakeModel, FakePlugin


def main(name: str, log: Path, model_name: str, seconds: float) -> None:
    dataset = fo.load_dataset(name)
    with get_plugins().registered(FakePlugin(FakeModel(seconds=seconds)), "fake"):
        enrich(dataset, log, model_name)


def enrich(dataset: fo.Dataset, log: Path, model_name: str) -> None:
    model = registry.load_model(model_name)
    embed = model.embed

    def logged(picture: Picture) -> ImageEmbedding:
        with log.open("a") as lines:
            lines.write(f"{picture[0, 0].tolist()}{picture.shape}{int(picture.sum())}\n")
        return embed(picture)

    model.embed = logged  # type: ignore[method-assign]
    request = Request(prompt_field="boxes", model=model_name, options=Options(tasks=("label", "brief")))
    for _ in Work(dataset, request).steps(model):
        pass


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]))
