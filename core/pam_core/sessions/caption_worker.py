"""Captions of events, made in one thread of their own: tracking never waits for texts."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pam_core.contracts import RegionModel
from pam_core.questions import Answer, Clip, Generation, Question
from pam_core.tasks import CLIP_TASK
from pam_core.video import Fault, SessionResult, TrackEvent


@dataclass(frozen=True)
class _CaptionRequest:
    """An event that waits for its caption; without a clip it passes in its turn, without texts.

    Without an event: the track is over, and its last caption is forgotten.
    """

    track_id: int
    event: TrackEvent | None = None
    clip: Clip | None = None
    dropped: bool = False


class CaptionWorker:
    """Describes clips in one background thread, all that wait together, and gives events back with their texts.

    Events of one track come back in the order in which they were put. `history` is how many characters of a track's
    last caption, in each language, its next clip is described with; as that caption has to be there first, a batch
    then holds one clip a track. Without history (0) it holds every clip that waits.

    At most `capacity` clips wait. Where one more comes, `put` waits until a batch takes them; where the frames are
    `live`, and would be lost meanwhile, the clip that waited longest is dropped instead: its event comes in its turn
    without texts, and a fault says so. A batch that fails does the same, after each of its clips was tried alone.
    """

    def __init__(
        self,
        model: RegionModel,
        languages: Sequence[str],
        generation: Generation,
        history: int,
        capacity: int,
        live: bool,
    ) -> None:
        self._model, self._languages, self._generation = model, languages, generation
        self._history, self._capacity, self._live = history, capacity, live
        self._last: dict[int, Mapping[str, str]] = {}
        self._waiting: deque[_CaptionRequest] = deque()
        self._ready: deque[SessionResult] = deque()
        self._busy = self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="pam-captions", daemon=True)
        self._thread.start()

    def put(self, event: TrackEvent, clip: Clip | None) -> None:
        """Request a caption of an event; without a clip it has none. After `close` it does nothing."""
        self._put(_CaptionRequest(event.track_id, event, clip))

    def forget(self, track_id: int) -> None:
        """Let what comes next under this id have no history."""
        self._put(_CaptionRequest(track_id))

    def _put(self, request: _CaptionRequest) -> None:
        with self._changed:
            if request.clip is not None and not self._live:
                self._changed.wait_for(lambda: self._closed or len(self._clips()) < self._capacity)
            if self._closed:
                return
            clips = self._clips()
            if request.clip is not None and len(clips) >= self._capacity:
                self._waiting[clips[0]] = replace(self._waiting[clips[0]], clip=None, dropped=True)
            self._waiting.append(request)
            self._changed.notify_all()

    def _clips(self) -> list[int]:
        """The positions of the waiting requests that have a clip."""
        return [position for position, request in enumerate(self._waiting) if request.clip is not None]

    def ready(self) -> list[SessionResult]:
        """What was finished since the last call."""
        with self._changed:
            results = list(self._ready)
            self._ready.clear()
        return results

    def finish(self) -> Iterator[SessionResult]:
        """Wait for every request, yielding results as they are finished."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._closed or not (self._waiting or self._busy))
                over = not self._ready
            if over:
                return
            yield from self.ready()

    def close(self) -> None:
        """Drop what waits and end the thread, after the batch that it is in. Safe to call again, from any thread."""
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
            batch = self._next_batch()
            self._busy = True
            self._changed.notify_all()  # there is room
        captions = self._describe([request for request in batch if request.clip is not None])
        with self._changed:
            for request in batch:
                if request.event is not None:
                    self._ready.extend(self._results(request.event, request.dropped, captions.get(id(request), {})))
            self._busy = False
            self._changed.notify_all()
        return True

    def _next_batch(self) -> list[_CaptionRequest]:
        """Every request that does not need a caption that is made in the same batch."""
        batch, later, described = [], deque[_CaptionRequest](), set()
        for request in self._waiting:
            if request.track_id in described:
                later.append(request)
                continue
            if request.event is None:  # the track's earlier requests have been answered
                self._last.pop(request.track_id, None)
                continue
            batch.append(request)
            if self._history and request.clip is not None:
                described.add(request.track_id)
        self._waiting = later
        return batch

    def _describe(self, requests: Sequence[_CaptionRequest]) -> dict[int, Mapping[str, str] | Exception]:
        """Texts by language code, or the error in their place, by `id` of the request."""
        if not requests or self._closed:
            return {}
        try:
            return {id(request): texts for request, texts in zip(requests, self._captions(requests), strict=True)}
        except Exception as error:  # whatever the model raises, tracking continues
            if len(requests) == 1:
                return {id(requests[0]): error}
            return {key: texts for request in requests for key, texts in self._describe([request]).items()}

    def _captions(self, requests: Sequence[_CaptionRequest]) -> list[dict[str, str]]:
        """A caption of each clip by language code. Raises whatever the model raises."""
        questions: dict[tuple[int, str], Question] = {}
        for number, request in enumerate(requests):
            previous = self._last.get(request.track_id, {}) if self._history else {}
            for code in self._languages:
                questions[number, code] = Question(
                    CLIP_TASK, code, clip=request.clip, previous=previous.get(code, ""), generation=self._generation
                )
        description = self._model.describe(list(questions.values()))
        answers = {id(news.question): news.text for news in description if isinstance(news, Answer)}
        texts: list[dict[str, str]] = [{} for _ in requests]
        for (number, code), question in questions.items():
            if not isinstance(answers.get(id(question)), str):
                raise ValueError(f"got no text in {code!r}; wanted an answer to every question")
            texts[number][code] = answers[id(question)]
        return texts

    def _results(
        self, event: TrackEvent, dropped: bool, caption: Mapping[str, str] | Exception
    ) -> Iterator[SessionResult]:
        where = f"Object {event.track_id}, frames {event.first} to {event.last}: no caption"
        if isinstance(caption, Exception):
            yield Fault(event.last, event.end, f"{where}, as the model failed ({caption!r}).", event.track_id)
        elif dropped:
            what = f"{where}, as {self._capacity} more clips were waiting. Captions are slower than events."
            yield Fault(event.last, event.end, what, event.track_id)
        elif caption:
            event = replace(event, texts=caption)
            if self._history:
                self._last[event.track_id] = {code: text[: self._history] for code, text in caption.items()}
        yield event
