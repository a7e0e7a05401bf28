"""A process that enriches a dataset and can be killed: `python enrich_process.py DATASET LOG [MODEL]`.

Every picture that the model looks at adds a line to LOG.
"""

from __future__ import annotations

import sys
from pathlib import Path

import fiftyone as fo

from fiftyone_plugin.work import Request, Work
from pam_core.questions import ImageEmbedding
from pam_core.types import Picture
from pam_plugins import plugins
from pam_plugins.options import Options


def main(name: str, log: Path) -> None:
    dataset = fo.load_dataset(name)
    model = plugins.load_model("lite")
    embed = model.embed

    def logged(picture: Picture) -> ImageEmbedding:
        with log.open("a") as lines:
            lines.write(f"{picture[0, 0].tolist()}{picture.shape}{int(picture.sum())}\n")
        return embed(picture)

    model.embed = logged  # type: ignore[method-assign]
    request = Request(prompt_field="boxes", model="lite", options=Options(tasks=("label", "brief")))
    for _ in Work(dataset, request).steps(model):
        pass


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
