"""A model of FiftyOne's zoo, for `dataset.apply_model(model, label_field="regions", prompt_field="boxes")`.

One label holds everything, as it is with the operators: Detections with mask, label and every text as attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import fiftyone as fo
import fiftyone.core.models as fom

from fiftyone_plugin.convert import Geometry, labels_in, prompt_of
from fiftyone_plugin.run import mask_folder
from pam_core.contracts import ModelInfo
from pam_core.errors import NotFoundError, PromptError
from pam_core.types import Picture, Prompt
from pam_plugins import plugins
from pam_plugins.api import perceive
from pam_plugins.options import Options

FAMILIES = {"pam-lite": "lite", "pam": "pam"}
"""The names in the zoo, and how the names of their models begin."""


def resolve(name: str) -> ModelInfo:
    """The best model of this family that is ready. Raises NotFoundError."""
    if name not in FAMILIES:
        raise NotFoundError(f"No model of the zoo is called {name!r}; there is {', '.join(FAMILIES)}.")
    known = [info for info in plugins.model_infos().values() if info.name.startswith(FAMILIES[name])]
    ready = [info for info in known if info.missing is None]
    if not ready:
        lacks = " ".join(f"{info.name}: {info.missing}" for info in known)
        raise NotFoundError(f"The model {name!r} is not ready here. {lacks}")
    return ready[0]


class PamZooModel(fom.SamplesMixin, fom.Model):
    """Regions of pictures, with labels of the sample's `prompt_field` as prompts; without it, of everything.

    `tasks` (all that the model can do, if left out), `languages` and `proposer` are as for `pam perceive`.
    `prompt_field` can also be given to `apply_model`. Raises UnsupportedError.
    """

    def __init__(
        self,
        info: ModelInfo,
        tasks: Sequence[str] | None = None,
        languages: Sequence[str] = ("en",),
        proposer: str = Options.proposer,
        prompt_field: str | None = None,
        device: str = "auto",
    ) -> None:
        super().__init__()
        self.config = Options(tuple(tasks) if tasks else None, tuple(languages), proposer)
        self.config.tasks_for(info)
        self._prompt_field = prompt_field
        self._model = plugins.load_model(info.name, device)
        self._geometry = Geometry("mask", mask_folder("zoo"))

    @property
    def media_type(self) -> str:
        return "image"

    @property
    def ragged_batches(self) -> bool:
        """Pictures of different sizes may come in one batch."""
        return False

    @property
    def needs_fields(self) -> dict[str, str]:
        """The fields that samples have to come with, as given to `apply_model` or to this model."""
        known = {"prompt_field": self._prompt_field} if self._prompt_field else {}
        return {**known, **self._fields}

    @needs_fields.setter
    def needs_fields(self, fields: dict[str, str]) -> None:
        unknown = sorted(set(fields) - {"prompt_field"})
        if unknown:
            raise ValueError(f"Got {', '.join(unknown)} for apply_model; wanted prompt_field or nothing.")
        self._fields = fields

    def predict(self, arg: Picture, sample: Any = None) -> fo.Detections | None:
        """The regions of a picture, RGB uint8 (height, width, 3); None where its sample has no prompt.

        Raises PromptError and PictureError, which name the sample's file.
        """
        field = self.needs_fields.get("prompt_field")
        name = str(getattr(sample, "filepath", "array"))
        prompts: list[Prompt] = []
        if field is not None:
            if sample is None:
                raise PromptError(f"Got no sample; wanted one with the field {field!r}.")
            height, width = arg.shape[:2]
            labels = labels_in(sample[field.removeprefix("frames.")])
            if not labels:
                return None
            try:
                prompts = [prompt_of(label, width, height) for label in labels]
            except PromptError as error:
                raise PromptError(f"{name}: {error}") from error
        perception = perceive(arg, prompts, model=self._model, options=self.config, name=name)
        return self._geometry.labels(perception.regions, str(getattr(sample, "id", "array")))

    def predict_all(
        self, args: Iterable[Picture], samples: Iterable[Any] | None = None
    ) -> list[fo.Detections | None]:
        """The regions of a batch of pictures. One that fails fails its batch; FiftyOne continues with the next."""
        pictures = list(args)
        theirs = [None] * len(pictures) if samples is None else list(samples)
        return [self.predict(picture, sample) for picture, sample in zip(pictures, theirs, strict=True)]
