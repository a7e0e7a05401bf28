"""Fetching released checkpoints from the Hugging Face hub, when asked.

Downloads are huggingface_hub's: what broke off is taken up again, files are checked against their size. Knows
nothing of what is inside them.
"""

from __future__ import annotations

from pathlib import Path

from pam_core.model.location import CheckpointError, repository
from pam_core.model.weights import WeightFiles

PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.yaml")
"""What is fetched: configuration, weights and tokenizer, and never a pickle."""


def download(name: str, revision: str | None = None) -> Path:
    """Fetch a repository with progress, or what is missing of it, and check it. Raises CheckpointError."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        folder = Path(snapshot_download(repository(name), revision=revision, allow_patterns=list(PATTERNS)))
    except HFValidationError as error:
        raise CheckpointError(
            f"{name}: not the name of a repository; wanted PAM-1.5B, PAM-3B or OWNER/NAME."
        ) from error
    except HfHubHTTPError as error:
        raise CheckpointError(
            f"{repository(name)}: the hub refused ({error}); look at the name and your access."
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"{repository(name)}: the download broke off ({error}); run it again, it goes on from there."
        ) from error
    for index in sorted(folder.rglob("config.json")):
        WeightFiles.in_folder(index.parent).__exit__(None, None, None)
    return folder
