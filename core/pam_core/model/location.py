"""Where checkpoints are: folders, and repositories that were downloaded. Knows no torch and asks no network."""

from __future__ import annotations

import hashlib
from pathlib import Path

OWNER = "Perceive-Anything"


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be used: says what was got, what was wanted and what to do."""


def find(source: str | Path, subfolder: str | None = None, revision: str | None = None) -> Path:
    """The folder that holds config.json: `source` itself, its `subfolder`, the only folder in it that has one, or
    what `pam download` fetched of the repository called `source`. Raises CheckpointError.
    """
    folder = Path(source)
    if not folder.is_dir():
        if folder.exists():
            raise CheckpointError(f"{source}: a file; wanted the folder of a checkpoint.")
        folder = find_cached(str(source), revision)
    if subfolder is not None:
        folder = folder / subfolder
    if (folder / "config.json").is_file():
        return folder
    inside = sorted(path.parent for path in folder.glob("*/config.json"))
    if len(inside) != 1:
        found = f"{len(inside)} folders that have one ({', '.join(p.name for p in inside)})" if inside else "none"
        raise CheckpointError(f"{folder}: holds no config.json, and {found} below it; name the folder that does.")
    return inside[0]


def repository(name: str) -> str:
    """A released model's repository; the name itself where it says whose it is."""
    return name if "/" in name else f"{OWNER}/{name}"


def find_cached(name: str, revision: str | None = None) -> Path:
    """Where `pam download` put a repository. Raises CheckpointError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository(name), revision=revision, local_files_only=True))
    except HFValidationError as error:
        raise CheckpointError(f"{name}: no such folder, and no name of a repository either.") from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(f"{name}: not on this machine; fetch it with: pam download {name}") from error


def fingerprint(folder: Path) -> str:
    """Tells checkpoints apart without reading gigabytes: config.json, and each weight file's size, head and tail."""
    digest = hashlib.blake2b((folder / "config.json").read_bytes(), digest_size=6)
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            digest.update(opened.read(1 << 16))
            size = opened.seek(0, 2)
            opened.seek(max(0, size - (1 << 16)))
            digest.update(opened.read() + str(size).encode())
    return digest.hexdigest()
