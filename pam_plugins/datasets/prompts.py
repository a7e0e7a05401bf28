"""The source `prompts`: a JSON Lines file of prompts, with the pictures they are for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pam_core.errors import MaskError, PromptError
from pam_core.types import Prompt
from pam_plugins.datasets.contracts import Job


class PromptsSourceFormat:
    """`prompts:clicks.jsonl`."""

    name = "prompts"
    description = "a JSON Lines file of prompts that name their pictures: prompts:FILE"

    def open(self, address: str) -> PromptsSource:
        return PromptsSource(Path(address))


class PromptsSource:
    """One job per picture, in the order of first mention; a picture's id is its path.

    A line is `{"image": "cat.jpg", "points": [[x, y], [x, y, 0]], "box": [x1, y1, x2, y2], "mask": {COCO RLE}}`;
    `image` is relative to the file and may be left out where exactly one picture is named in `images`; other
    fields are ignored. Raises PromptError with the line's number.
    """

    def __init__(self, path: Path, images: Sequence[Path] = ()) -> None:
        prompts: dict[Path, list[Prompt]] = {image: [] for image in images}
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")  # not splitlines: JSON may hold U+2028
        except (OSError, UnicodeDecodeError) as error:
            raise PromptError(f"{path}: cannot be read ({error}); wanted a JSON Lines file of prompts.") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                data: Mapping[str, Any] = json.loads(line)
                prompts.setdefault(_image(data, path, images), []).append(Prompt.from_json(data))
            except (PromptError, MaskError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise PromptError(f"{path}, line {number}: {error}") from error
        self._jobs = [Job(image, tuple(of_image)) for image, of_image in prompts.items() if of_image]
        if not self._jobs:
            raise PromptError(f"{path} holds no prompt; wanted at least one line with points, a box or a mask.")

    def __len__(self) -> int:
        return len(self._jobs)

    def jobs(self) -> Iterator[Job]:
        return iter(self._jobs)


def _image(data: Mapping[str, Any], path: Path, images: Sequence[Path]) -> Path:
    if "image" in data:
        return path.parent / data["image"]
    if len(images) == 1:
        return images[0]
    raise PromptError(f'got no "image" and {len(images)} pictures named; wanted one of the two.')
