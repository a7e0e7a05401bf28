"""What commands have in common: languages, numbers and masks from options, choosing and loading a model."""

from __future__ import annotations

from pathlib import Path

from pam_core.contracts import ModelInfo, RegionModel
from pam_core.errors import NotReadyError, PamError, PictureError, PromptError
from pam_core.masks import Mask
from pam_core.media.images import read_picture
from pam_plugins import plugins
from pam_plugins.cli.console import note


def languages(text: str) -> tuple[str, ...]:
    """The codes in `--lang en,zh`."""
    return tuple(code.strip() for code in text.split(",") if code.strip())


def choose(name: str) -> ModelInfo:
    """The model called `name`; of "auto" the user is told what it is. Raises NotFoundError and NotReadyError."""
    info = plugins.resolve_model(name)
    if name == "auto":
        tell(info)
    return info


def tell(info: ModelInfo) -> None:
    """Say which model was chosen."""
    note(f"Model: {info.name}, {info.description}. `pam models` lists others and how to get them.")


def numbers(text: str, counts: tuple[int, ...], option: str, wanted: str) -> list[float]:
    """The numbers in an option's value, so many as one of `counts`. Raises PromptError with what was `wanted`."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in counts:
        example = "320,240" if 2 in counts else "100,80,320,240"
        raise PromptError(f"Got {option} {text!r}; wanted {wanted} in pixels, e.g. {option} {example}.")
    return values


def read_mask(path: Path) -> Mask:
    """A mask picture: what is brighter than half is set. Raises PromptError."""
    try:
        return Mask.from_array(read_picture(path).max(axis=2) > 127)
    except PictureError as error:
        raise PromptError(f"--mask {error}") from error


def load(info: ModelInfo, device: str, compile: bool = False) -> RegionModel:
    """Load a model. Raises PamError, NotReadyError among them for whatever a provider raises."""
    try:
        return plugins.load_model(info.name, device, compile)
    except PamError:
        raise
    except Exception as error:
        raise NotReadyError(
            f"the model {info.name!r} could not be loaded: {type(error).__name__}: {error}"
        ) from error
