"""Every error of the project, under one base. Standard library only.

A message is a sentence: what was got, what was wanted, what to do. `exit_code` is what the command line ends with:
1 where something could not be done, 2 where it was asked for wrongly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class PamError(Exception):
    """The base of all errors that PAM Plugins raises on purpose."""

    exit_code = 1


class PromptError(PamError, ValueError):
    """A prompt that cannot be used."""

    exit_code = 2


class MaskError(PamError, ValueError):
    """A mask of the wrong shape, type or encoding."""

    exit_code = 2


class UnsupportedError(PamError, ValueError):
    """A task, a language, a prompt or an option that a model does not have."""

    exit_code = 2


class GenerationError(PamError, ValueError):
    """Settings of text generation that make no sense."""

    exit_code = 2


class DeviceError(PamError, RuntimeError):
    """A device that is not there."""

    exit_code = 2


class NotFoundError(PamError, LookupError):
    """A name that no plugin registered."""

    exit_code = 2


class NotReadyError(NotFoundError):
    """A known model that cannot be loaded here."""

    exit_code = 1


class MissingExtraError(PamError, ImportError):
    """A feature whose optional packages are not installed."""


class SchemaError(PamError, ValueError):
    """JSON that is not what this version writes."""


class PictureError(PamError, ValueError):
    """A picture that cannot be read."""


class VideoError(PamError, ValueError):
    """Settings, prompts or frames that cannot be tracked. `track_id` is set where only one object is concerned."""

    exit_code = 2

    def __init__(self, message: str, track_id: int | None = None) -> None:
        super().__init__(message)
        self.track_id = track_id


class VideoReadError(VideoError):
    """A video, a folder of frames or a camera that cannot be read."""

    exit_code = 1


class ConfigError(PamError, ValueError):
    """A configuration that no model can be built from."""


class CheckpointError(PamError, RuntimeError):
    """Weights or a checkpoint that cannot be used."""


class DatasetError(PamError, RuntimeError):
    """A source or a sink that cannot be read or written."""


class RayRunError(PamError, RuntimeError):
    """Ray cannot do the work here."""


@contextmanager
def needs_extra(extra: str, feature: str) -> Iterator[None]:
    """Make an ImportError raised inside name the extra that `feature` needs. Raises MissingExtraError."""
    try:
        yield
    except MissingExtraError:
        raise
    except ImportError as error:
        raise MissingExtraError(
            f"{feature} needs packages that are not installed here ({error}): pip install 'pam-plugins[{extra}]'"
        ) from error
