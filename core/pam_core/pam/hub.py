"""Download released checkpoints from the Hugging Face hub.

What arrives is an ordinary hub cache. Its large files are fetched here, because huggingface_hub begins each of them
anew in every run: a partial file lies beside its place in the cache until it is complete and its sha256 is right.
Knows nothing of what is inside them.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import HfApi, errors, hf_hub_url, snapshot_download
from huggingface_hub.file_download import http_get
from huggingface_hub.hf_api import BlobLfsInfo
from huggingface_hub.utils import WeakFileLock, build_hf_headers  # type: ignore[attr-defined]

from pam_core.errors import CheckpointError
from pam_core.pam.location import PATTERNS, cache_folder, find, first_line, repository
from pam_core.pam.weights import WeightFiles


def download(name: str, revision: str | None = None) -> Path:
    """Fetch a repository with progress, or what is missing of it, and check it. Raises CheckpointError."""
    repo = repository(name)
    with _one_sentence(repo, "the hub cannot be reached"):
        info = HfApi().model_info(repo, revision=revision, files_metadata=True)
    files = {file.rfilename: file.lfs for file in info.siblings or ()}
    wanted = [file for file in files if any(fnmatch(file, pattern) for pattern in PATTERNS)]
    if not any(file.endswith(".safetensors") for file in wanted):
        raise CheckpointError(f"{repo}: holds no *.safetensors; other weights, such as pickles, are never fetched.")
    with _one_sentence(repo, "the download broke off"):
        for file in wanted:
            if (blob := files[file]) is not None:
                _fetch(repo, str(info.sha), file, blob)
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=list(PATTERNS)))
    WeightFiles.in_folder(find(folder)).__exit__(None, None, None)
    return folder


def _fetch(repo: str, commit: str, file: str, blob: BlobLfsInfo) -> None:
    """Get a large file into the hub's cache, or the rest of it. Raises CheckpointError, OSError and HTTPError."""
    cache = cache_folder(repo)
    place = cache / "blobs" / blob.sha256
    partial = place.with_name(f"{blob.sha256}.partial")
    lock = cache.parent / ".locks" / cache.name / f"{blob.sha256}.lock"  # the one that huggingface_hub takes
    for folder in (place.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if place.exists() or (cache / "snapshots" / commit / file).exists():
            return
        with partial.open("ab") as opened:
            if opened.tell() > blob.size:
                opened.truncate(0)
                opened.seek(0)
            http_get(
                hf_hub_url(repo, file, revision=commit),
                opened,
                resume_size=opened.tell(),
                headers={**build_hf_headers(), "Accept-Encoding": "identity"},  # nobody resumes what is compressed
                expected_size=blob.size,
                displayed_filename=file,
            )
        if _sha256(partial) != blob.sha256:
            partial.unlink()
            raise CheckpointError(
                f"{repo}: {file} arrived damaged (its sha256 is wrong) and was deleted; run it again."
            )
        partial.replace(place)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


@contextmanager
def _one_sentence(repo: str, otherwise: str) -> Iterator[None]:
    """Turn what huggingface_hub and its network library raise into CheckpointError."""
    try:
        yield
    except (OSError, errors.HTTPError, errors.HFValidationError) as error:  # type: ignore[attr-defined]
        raise CheckpointError(f"{repo}: {_reason(error, repo) or _broken(error, otherwise)}") from error


def _reason(error: Exception, repo: str) -> str | None:
    """What is wrong and what to do; None where it is the network."""
    if isinstance(error, errors.HFValidationError):
        return "no name of a repository; wanted PAM-1.5B, PAM-3B or OWNER/NAME."
    if isinstance(error, errors.GatedRepoError):
        return "it is gated; ask for access on its page, log in here (hf auth login) and run it again."
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such repository, or a private one; look at the name, or log in (hf auth login)."
    if isinstance(error, errors.RevisionNotFoundError):
        return "has no such branch, tag or commit; leave --revision out."
    if isinstance(error, errors.HfHubHTTPError):
        return f"the hub refused with status {error.response.status_code}; run it again later."
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full; make room for {cache_folder(repo)} and run it again, it goes on from there."
    if isinstance(error, PermissionError):
        return f"{error.filename} cannot be written; set HF_HUB_CACHE to a folder that can."
    return None


def _broken(error: Exception, otherwise: str) -> str:
    return f"{otherwise} ({first_line(error.__cause__ or error)}); run it again, it goes on from there."
