"""Prompts and removals for a running session, from any thread, until their frame comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from pam_core.types import Prompt


@dataclass(frozen=True)
class PromptRequest:
    """A prompt for an object, on the frame with this index or on the next that comes."""

    track_id: int
    prompt: Prompt
    frame: int | None = None


@dataclass(frozen=True)
class DuePrompts:
    """What is due on a frame: tracks to remove, then prompts in their order; and prompts whose frame has passed."""

    removed: Sequence[int]
    prompts: Sequence[PromptRequest]
    missed: Sequence[PromptRequest]


class PromptQueue:
    """Waiting prompts and removals."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._prompts: list[PromptRequest] = []
        self._removed: list[int] = []

    def put(self, request: PromptRequest) -> None:
        with self._lock:
            self._prompts.append(request)

    def remove(self, track_id: int) -> None:
        """Also drop the waiting prompts of this object; later ones begin it anew."""
        with self._lock:
            self._prompts = [request for request in self._prompts if request.track_id != track_id]
            self._removed.append(track_id)

    def waiting(self) -> list[PromptRequest]:
        """The prompts whose frame has not come yet."""
        with self._lock:
            return list(self._prompts)

    def take(self, index: int, step: int) -> DuePrompts:
        """Take what is due on this frame, where indices count up (step 1) or down (-1)."""
        with self._lock:
            waiting, self._prompts = self._prompts, []
            removed, self._removed = self._removed, []
            prompts: list[PromptRequest] = []
            missed: list[PromptRequest] = []
            for request in waiting:
                ahead = 0 if request.frame is None else (request.frame - index) * step
                (self._prompts if ahead > 0 else missed if ahead < 0 else prompts).append(request)
        return DuePrompts(removed, prompts, missed)

    def take_rest(self) -> list[PromptRequest]:
        """Take the prompts whose frame never came."""
        with self._lock:
            rest, self._prompts = self._prompts, []
        return rest
