"""What is asked of a session while it runs, from any thread, until its frame comes."""

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
    """What is to be done on a frame: objects to remove, then prompts, in the order in which they were asked for;
    and prompts whose frame has gone by.
    """

    removed: Sequence[int]
    prompts: Sequence[PromptRequest]
    missed: Sequence[PromptRequest]


class PromptQueue:
    """Prompts and removals that wait."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._prompts: list[PromptRequest] = []
        self._removed: list[int] = []

    def ask(self, asked: PromptRequest) -> None:
        with self._lock:
            self._prompts.append(asked)

    def remove(self, track_id: int) -> None:
        """Also takes back the prompts of this object that wait; those that come later begin it anew."""
        with self._lock:
            self._prompts = [asked for asked in self._prompts if asked.track_id != track_id]
            self._removed.append(track_id)

    def waiting(self) -> list[PromptRequest]:
        """The prompts whose frame has not come yet."""
        with self._lock:
            return list(self._prompts)

    def take(self, index: int, step: int) -> DuePrompts:
        """What is due on this frame, where frames count up (step 1) or down (-1). It waits no longer."""
        with self._lock:
            waiting, self._prompts = self._prompts, []
            removed, self._removed = self._removed, []
            prompts: list[PromptRequest] = []
            missed: list[PromptRequest] = []
            for asked in waiting:
                ahead = 0 if asked.frame is None else (asked.frame - index) * step
                (self._prompts if ahead > 0 else missed if ahead < 0 else prompts).append(asked)
        return DuePrompts(removed, prompts, missed)

    def take_rest(self) -> list[PromptRequest]:
        """The prompts whose frame never came. They wait no longer."""
        with self._lock:
            rest, self._prompts = self._prompts, []
        return rest
