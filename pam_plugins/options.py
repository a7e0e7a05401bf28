"""What is asked of each picture, whichever way it comes in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pam_core.contracts import ModelInfo
from pam_core.errors import PromptError, UnsupportedError
from pam_core.questions import Generation
from pam_core.types import Prompt, language_codes

DEFAULT_PROPOSER = "grid"
ON_REQUEST_TASKS = frozenset({"text"})
"""Tasks that are slow for most regions and empty for most: done only where asked for by name."""


@dataclass(frozen=True)
class Options:
    """Tasks, languages and settings. Without `tasks`, all that the model can do in these languages.

    Where `keep_masks` is set, the mask of a prompt is the region's mask as it is; the model adds texts only.
    """

    tasks: tuple[str, ...] | None = None
    languages: tuple[str, ...] = ("en",)
    proposer: str = DEFAULT_PROPOSER
    postprocess: tuple[str, ...] = ()
    generation: Generation = Generation()
    keep_masks: bool = False

    def tasks_for(self, info: ModelInfo) -> tuple[str, ...]:
        """The tasks to put to a model. Raises UnsupportedError where it cannot do them."""
        if not self.languages:
            raise UnsupportedError("Got no language; wanted at least one, such as en or zh.")
        if self.tasks is not None:
            info.check(self.tasks, self.languages)
            return self.tasks
        wanted = set(language_codes(self.languages))
        able = tuple(task for task, known in info.tasks.items() if wanted <= known and task not in ON_REQUEST_TASKS)
        if not able:
            raise UnsupportedError(f"{info.name} has no task that it can do in {', '.join(sorted(wanted))}.")
        return able

    def run_id(self, info: ModelInfo, prompts: Sequence[Prompt]) -> str:
        """A short id of the model, the options and the prompts: equal where the result would be equal."""
        parts: dict[str, Any] = {
            "model": [info.name, info.revision],
            "tasks": self.tasks_for(info),
            "languages": self.languages,
            "proposer": None if prompts else self.proposer,
            "postprocess": self.postprocess,
            "generation": vars(self.generation),
            "prompts": [prompt.to_json() for prompt in prompts],
        }
        if self.keep_masks:
            parts["redraw"] = False
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def check_prompt(info: ModelInfo, prompt: Prompt) -> None:
    """Raise PromptError unless the model takes prompts of this kind."""
    kinds = {"point": prompt.points != (), "box": prompt.box is not None, "mask": prompt.mask is not None}
    used = {kind for kind, there in kinds.items() if there}
    if not used <= info.prompts:
        raise PromptError(
            f"Got a {' and '.join(sorted(used))} prompt; {info.name} takes {', '.join(sorted(info.prompts))}."
        )
