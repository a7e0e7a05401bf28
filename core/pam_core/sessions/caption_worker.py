"""CaptionWorker of events, made in one thread of their own: nobody who follows objects waits for words."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pam_core.questions import Clip, Generation
from pam_core.video import Fault, SessionResult, TrackEvent, VideoModel


@dataclass(frozen=True)
class _CaptionRequest:
    """An event that waits for its caption; without a clip it passes in its turn, without texts.

    Without an event: the object is over, and what was said of it is forgotten.
    """

    track_id: int
    event: TrackEvent | None = None
    clip: Clip | None = None
    left_out: bool = False


class CaptionWorker:
    """Describes clips in one background thread, all that wait in one call, and gives events back with their texts.

    Events of one object come back in the order in which they were put. `history` is how many characters of an
    object's last caption, in each language, its next clip is described with; as that caption has to be there first,
    a call then holds one clip an object. Without history (0) it holds every clip that waits.

    At most `waiting` clips wait. Where one more comes, `put` waits until a call takes them; where the frames are
    `live`, and would be lost meanwhile, the clip that waited longest is left out instead: its event comes in its turn
    without texts, and a fault says so. A call that fails does the same, after each of its clips has been tried alone.
    """

    def __init__(
        self,
        model: VideoModel,
        languages: Sequence[str],
        generation: Generation,
        history: int,
        waiting: int,
        live: bool,
    ) -> None:
        self._model, self._languages, self._generation = model, languages, generation
        self._history, self._limit, self._live = history, waiting, live
        self._last: dict[int, Mapping[str, str]] = {}
        self._waiting: deque[_CaptionRequest] = deque()
        self._ready: deque[SessionResult] = deque()
        self._busy = self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="pam-captions", daemon=True)
        self._thread.start()

    def put(self, event: TrackEvent, clip: Clip | None) -> None:
        """Ask for a caption of an event; without a clip it has none. After `close` it does nothing."""
        self._put(_CaptionRequest(event.track_id, event, clip))

    def forget(self, track_id: int) -> None:
        """What comes next under this id has no history."""
        self._put(_CaptionRequest(track_id))

    def _put(self, asked: _CaptionRequest) -> None:
        with self._changed:
            if asked.clip is not None and not self._live:
                self._changed.wait_for(lambda: self._closed or len(self._clips()) < self._limit)
            if self._closed:
                return
            clips = self._clips()
            if asked.clip is not None and len(clips) >= self._limit:
                oldest = self._waiting[clips[0]]
                self._waiting[clips[0]] = replace(oldest, clip=None, left_out=True)
            self._waiting.append(asked)
            self._changed.notify_all()

    def _clips(self) -> list[int]:
        """The places of the clips that wait."""
        return [place for place, item in enumerate(self._waiting) if item.clip is not None]

    def ready(self) -> list[SessionResult]:
        """What has been finished since the last call."""
        with self._changed:
            done = list(self._ready)
            self._ready.clear()
        return done

    def finish(self) -> Iterator[SessionResult]:
        """Wait for everything that was asked, giving it as it is finished."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._closed or not (self._waiting or self._busy))
                over = not self._ready
            if over:
                return
            yield from self.ready()

    def close(self) -> None:
        """Drop what waits and end the thread, after the call that it is in. Safe to call again, from any thread."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while self._work_once():  # a call of its own, so that no clip is held while nothing is to do
            pass

    def _work_once(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return False
            batch = self._next_call()
            self._busy = True
            self._changed.notify_all()  # there is room
        answers = self._describe([item for item in batch if item.clip is not None])
        with self._changed:
            for item in batch:
                if item.event is not None:
                    self._ready.extend(self._answered(item.event, item.left_out, answers.get(id(item), {})))
            self._busy = False
            self._changed.notify_all()
        return True

    def _next_call(self) -> list[_CaptionRequest]:
        """What goes into one call: everything that does not need a caption that is made in it."""
        batch, later, described = [], deque[_CaptionRequest](), set()
        for item in self._waiting:
            if item.track_id in described:
                later.append(item)
                continue
            if item.event is None:  # what came before it has been answered
                self._last.pop(item.track_id, None)
                continue
            batch.append(item)
            if self._history and item.clip is not None:
                described.add(item.track_id)
        self._waiting = later
        return batch

    def _describe(self, items: Sequence[_CaptionRequest]) -> dict[int, Mapping[str, str] | Exception]:
        """Texts, or the error instead of them, by `id` of the item."""
        clips = [item.clip for item in items if item.clip is not None]
        if not clips or self._closed:
            return {}
        try:
            previous = [self._last.get(item.track_id, {}) for item in items] if self._history else []
            texts = self._model.describe_clips(clips, self._languages, previous, self._generation)
            if len(texts) != len(items) or not all(isinstance(text, Mapping) for text in texts):
                raise ValueError(f"got {texts!r}; wanted the captions of {len(items)} clips, each by language code")
        except Exception as error:  # whatever the model raises, the objects are still followed
            if len(items) == 1:
                return {id(items[0]): error}
            return {key: answer for item in items for key, answer in self._describe([item]).items()}
        return {id(item): text for item, text in zip(items, texts, strict=True)}

    def _answered(
        self, event: TrackEvent, left_out: bool, answer: Mapping[str, str] | Exception
    ) -> Iterator[SessionResult]:
        where = f"Object {event.track_id}, frames {event.first} to {event.last}: no caption"
        if isinstance(answer, Exception):
            yield Fault(event.last, event.end, f"{where}, as the model failed ({answer!r}).", event.track_id)
        elif left_out:
            what = f"{where}, as {self._limit} more clips were waiting. CaptionWorker are slower than events."
            yield Fault(event.last, event.end, what, event.track_id)
        elif answer:
            event = replace(event, texts=answer)
            if self._history:
                self._last[event.track_id] = {code: text[: self._history] for code, text in answer.items()}
        yield event
