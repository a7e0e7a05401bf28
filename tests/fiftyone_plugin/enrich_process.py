"""A process that enriches a dataset and can be killed: `python enrich_process.py DATASET LOG [MODEL]`.

Every picture that is embedded adds a line to LOG.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import fiftyone as fo

from fiftyone_plugin.images import ImageRequest, ImageRun
from pam_core.questions import ImageEmbedding
from pam_core.types import Picture
from pam_plugins import plugins
from pam_plugins.options import Options


def main(name: str, log: Path) -> None:
    dataset = fo.load_dataset(name)
    model = plugins.load_model("lite")
    embed = model.embed

    def logged(pictures: Sequence[Picture]) -> Sequence[ImageEmbedding]:
        with log.open("a") as lines:
            lines.writelines(f"{each[0, 0].tolist()}{each.shape}{int(each.sum())}\n" for each in pictures)
        return embed(pictures)

    model.embed = logged  # type: ignore[method-assign]
    request = ImageRequest(prompt_field="boxes", model="lite", options=Options(tasks=("label", "brief")))
    for _ in ImageRun(dataset, request).steps(model):
        pass


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
