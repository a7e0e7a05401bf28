"""Weight files: reading safetensors in any number of shards, and modules that wait for their weights.

Pickles can run code when they are read. They are refused, unless the caller trusts them (`trust_pickle`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from pickle import UnpicklingError
from threading import Lock, get_ident
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from pam_core.errors import CheckpointError
from pam_core.pam.location import INDEX, SINGLE, first_line, shards

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class WeightFiles:
    """The tensors of one or several safetensors files by key; each is read on access."""

    def __init__(self, files: list[Path]) -> None:
        self._open = ExitStack()
        self._homes: dict[str, tuple[Path, Any]] = {}
        for file in files:
            try:
                reader = self._open.enter_context(safe_open(file, framework="pt"))
                self._homes.update((key, (file, reader)) for key in reader.keys())  # noqa: SIM118
            except FileNotFoundError as error:
                self._open.close()
                raise CheckpointError(
                    f"{file}: no such file; fetch the checkpoint again (`pam download`)."
                ) from error
            except (SafetensorError, OSError) as error:
                self._open.close()
                raise CheckpointError(
                    f"{file}: damaged or cut short ({first_line(error)}); fetch it again (`pam download`)."
                ) from error

    @classmethod
    def in_folder(cls, folder: Path) -> WeightFiles:
        """The files that a folder's index names, or its single file. Raises CheckpointError."""
        if (folder / INDEX).is_file():
            return cls(shards(folder / INDEX))
        if (folder / SINGLE).is_file():
            return cls([folder / SINGLE])
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
        if pickles:
            raise CheckpointError(f"{folder / pickles[0]}: {_refusal(folder)}")
        raise CheckpointError(f"{folder}: holds no {SINGLE} and no {INDEX}; wanted a checkpoint's folder.")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Keys and shapes, out of the files' headers."""
        return {key: tuple(reader.get_slice(key).get_shape()) for key, (_, reader) in self._homes.items()}

    def __getitem__(self, key: str) -> Tensor:
        file, reader = self._homes[key]
        try:
            tensor: Tensor = reader.get_tensor(key)
            return tensor
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{file}: the tensor {key} cannot be read ({first_line(error)}); fetch the file again."
            ) from error

    def __enter__(self) -> WeightFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()


def read_weights(file: Path, *, trust_pickle: bool = False) -> dict[str, Tensor]:
    """All tensors of one file. A pickle is read only where `trust_pickle`, and then nothing but tensors from it."""
    if file.suffix in PICKLES:
        if not trust_pickle:
            raise CheckpointError(f"{file}: {_refusal('REFERENCE')}")
        try:
            found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except FileNotFoundError as error:
            raise CheckpointError(f"{file}: no such file.") from error
        except UnpicklingError as error:
            raise CheckpointError(
                f"{file}: damaged, or holds more than tensors, and nothing else is read from a pickle; "
                "wanted a state dict."
            ) from error
        except MemoryError:
            raise
        except Exception as error:  # torch raises errors of many types for damaged files
            raise CheckpointError(f"{file}: cannot be read as weights ({first_line(error)}).") from error
        found = found.get("model", found) if isinstance(found, Mapping) else found
        if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
            raise CheckpointError(f"{file}: holds something else than tensors by name; wanted a state dict.")
        return dict(found)
    with WeightFiles([file]) as weights:
        return {key: weights[key] for key in weights.shapes()}


def _refusal(source: object) -> str:
    return (
        "a pickle, which can run code when it is read; wanted safetensors. If you trust where it comes from, "
        f"convert it once: pam convert {source} --out DIR --trust-pickle"
    )


_building = Lock()


@contextmanager
def empty_weights() -> Iterator[None]:
    """Within it, modules are built without memory for their parameters (they are on the meta device).

    Buffers are real: position tables and rotary frequencies, which no checkpoint holds, are computed as ever.
    """
    register, mine = nn.Module.register_parameter, get_ident()

    def register_empty(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and get_ident() == mine:  # other threads may be building modules of their own
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    with _building:
        nn.Module.register_parameter = register_empty  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            nn.Module.register_parameter = register  # type: ignore[method-assign]
