"""Where checkpoints are: folders, and repositories that were downloaded. No torch, no network."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pam_core.errors import CheckpointError

OWNER = "Perceive-Anything"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"

PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.yaml")
"""What is fetched of a repository: configuration, weights and tokenizer, and never a pickle."""

LARGEST_HEADER, SAMPLE = 100_000_000, 1024
"""Bytes: what the format allows, and what is read of each tensor to tell checkpoints apart."""


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that libraries add; its name where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


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
    """Where `pam download` put a repository, if all of it is there. Raises CheckpointError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    repo = repository(name)
    command = f"pam download {name}" + (f" --revision {revision}" if revision else "")
    try:
        folder = Path(
            snapshot_download(repo, revision=revision, allow_patterns=list(PATTERNS), local_files_only=True)
        )
    except HFValidationError as error:
        raise CheckpointError(f"{name}: no such folder, and no name of a repository either.") from error
    except LocalEntryNotFoundError as error:
        some = cache_folder(repo).is_dir()
        where, what = ("only in part on this machine", "the rest") if some else ("not on this machine", "it")
        raise CheckpointError(f"{name}: {where}; fetch {what} with: {command}") from error
    weights = {file for index in folder.rglob(INDEX) for file in shards(index)} | {*folder.rglob("*.safetensors")}
    missing = sorted(file.name for file in weights if not file.is_file())  # a link to nothing is no file either
    if missing or not weights:
        lacking = missing[0] if missing else "its weights"
        raise CheckpointError(f"{name}: on this machine without {lacking}; fetch the rest with: {command}")
    return folder


def cache_folder(repo: str) -> Path:
    """Where huggingface_hub keeps all it has of a repository."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    return Path(HF_HUB_CACHE).expanduser() / repo_folder_name(repo_id=repo, repo_type="model")


def shards(index: Path) -> list[Path]:
    """The weight files that an index names, all beside it. Raises CheckpointError."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        if any(Path(name).name != name for name in names):
            raise ValueError("it names files outside its folder")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: not an index of weights ({first_line(error)}); fetch it again.") from error
    return [index.parent / name for name in names]


def fingerprint(folder: Path) -> str:
    """Tells checkpoints apart without reading gigabytes: config.json, and the beginning of each tensor. Training
    changes tensors as a whole, and often few of them.
    """
    digest = hashlib.blake2b((folder / "config.json").read_bytes(), digest_size=6)
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            header = opened.read(min(int.from_bytes(opened.read(8), "little"), LARGEST_HEADER))
            digest.update(header)
            for start, end in _spans(header):
                opened.seek(8 + len(header) + start)
                digest.update(opened.read(min(end - start, SAMPLE)))
    return digest.hexdigest()


def _spans(header: bytes) -> list[tuple[int, int]]:
    """Where a safetensors file has its tensors; none in a damaged one, which loading it will say."""
    try:
        spans = [entry["data_offsets"] for key, entry in json.loads(header).items() if key != "__metadata__"]
        return sorted((int(start), int(end)) for start, end in spans)
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
