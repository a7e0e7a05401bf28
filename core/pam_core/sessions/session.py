"""A session: frames of any source through the tracker of any model, results as they are known.

    with StreamSession(model) as session:
        session.prompt(1, Prompt.at(320, 240), frame=0)
        for result in session.run(source):
            ...

The thread that iterates `run` tracks; captions are made in one thread behind it. docs/streams.md has the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Literal

from pam_core.contracts import FrameSource, RegionModel, ReversibleSource
from pam_core.errors import VideoError
from pam_core.questions import Generation
from pam_core.sessions.caption_worker import CaptionWorker
from pam_core.sessions.events import EventRule
from pam_core.sessions.frame_order import FrameOrder
from pam_core.sessions.object_tracks import ObjectTracks
from pam_core.sessions.prompt_queue import PromptQueue, PromptRequest
from pam_core.types import Prompt, language_codes
from pam_core.video import Fault, Frame, FrameResult, SessionResult

Direction = Literal["forward", "backward", "both"]


class StreamSession:
    """Tracks objects through the frames of a source, cuts their tracks into events, and captions these.

    `history` is how many characters of an object's last caption, in each language, its next clip is described with,
    counted from the beginning; 0 for none. At most `waiting` clips wait for their caption. Where captions are slower
    than that, frames that can be read at any time (`ReversibleSource`) are read no faster; of any other source, such
    as a camera, the clip that waited longest is dropped, with a Fault.

    Memory does not grow with the number of frames. Raises VideoError for settings that make no sense.
    """

    def __init__(
        self,
        model: RegionModel,
        *,
        languages: Sequence[str] = ("en",),
        generation: Generation = Generation(),
        rule: EventRule = EventRule(),
        captions: bool = True,
        history: int = 500,
        waiting: int = 32,
    ) -> None:
        if not model.info.video:
            raise VideoError(f"Got {model.info.name}, which tracks no objects; wanted a model that does.")
        if captions and not languages:
            raise VideoError("Got no language for the captions; wanted at least one, such as en or zh.")
        if history < 0 or waiting < 1:
            raise VideoError(
                f"Got a history of {history} characters and {waiting} waiting clips; wanted at least 0 and 1."
            )
        self._model, self._rule = model, rule
        self._languages, self._generation = language_codes(languages), generation
        self._captioned, self._history, self._waiting = captions, history, waiting
        self._prompts = PromptQueue()
        self._captions: CaptionWorker | None = None
        self._running = self._closed = False

    def prompt(self, track_id: int, prompt: Prompt, frame: int | None = None) -> None:
        """Begin to track an object, or correct a tracked one, on the frame with this index or on the next.
        From any thread, before or during `run`.

        What is wrong with it is yielded by `run` as a Fault: a frame that has passed (or never comes), a prompt that
        does not fit the picture.
        """
        self._prompts.put(PromptRequest(track_id, prompt, frame))

    def remove(self, track_id: int) -> None:
        """Stop tracking an object from the next frame on, and drop its waiting prompts. From any thread."""
        self._prompts.remove(track_id)

    def run(self, source: FrameSource, direction: Direction = "forward") -> Iterator[SessionResult]:
        """Track objects through a source's frames, one run after the other.

        A FrameResult for every frame at once, also where nothing is tracked; a TrackEvent when its caption is there;
        a Fault where something failed. At the end, all captions are waited for. Going "backward" starts at the
        last frame that has a prompt and ends at frame 0. "both" tracks from the first frame that has a prompt to
        the end, and then, with a tracker of its own and the prompts of that one frame, from there to frame 0; no
        frame is yielded twice. An event's `first` is never after its `last`.

        Raises VideoError, at once, where the source cannot go backward or no prompt says where to begin.
        """
        if self._closed:
            raise VideoError("Got frames for a session that is closed; wanted an open one. Make a new session.")
        if direction not in ("forward", "backward", "both"):
            raise VideoError(f"Got the direction {direction!r}; wanted forward, backward or both.")
        if direction == "forward":
            return self._run(self._track(source, 1), live=not isinstance(source, ReversibleSource))
        if not isinstance(source, ReversibleSource):
            raise VideoError(
                f"Got the direction {direction} for {type(source).__name__}, which goes forward only; wanted a "
                "source that can go backward, such as a file."
            )
        prompts = self._prompts.waiting()
        if not prompts:
            raise VideoError(
                f"Got the direction {direction} and no prompt; wanted prompts first: they say where to begin."
            )
        frames = [request.frame for request in prompts if request.frame is not None]
        if direction == "both":
            # A prompt without a frame is for the first one, before which there is nothing.
            from_start = len(frames) < len(prompts)
            return self._run(self._track(source, 1) if from_start else self._both(source, min(frames)))
        if not frames:
            raise VideoError("Got prompts without a frame; going backward, wanted the frame of at least one of them.")
        return self._run(self._track(source.reversed_from(max(frames)), -1))

    def close(self) -> None:
        """End `run` with its next frame, drop captions that are not started, and wait for the thread that makes them.

        Safe to call again, and from any thread.
        """
        self._closed = True
        if self._captions is not None:
            self._captions.close()

    def __enter__(self) -> StreamSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, passes: Iterator[SessionResult], live: bool = False) -> Iterator[SessionResult]:
        if self._running:
            raise VideoError("Got a second run while the first goes on; wanted one at a time, or another session.")
        self._running = True
        captions = None
        try:
            if self._captioned:
                captions = CaptionWorker(
                    self._model, self._languages, self._generation, self._history, self._waiting, live
                )
            self._captions = captions
            yield from passes
            if captions is not None:
                yield from captions.finish()
        finally:  # also where the consumer stops early, or is interrupted
            self._running = False
            if captions is not None:
                captions.close()

    def _both(self, source: ReversibleSource, start: int) -> Iterator[SessionResult]:
        """Forward from `start`, then backward from there with the prompts of that frame."""
        started: list[PromptRequest] = []
        yield from self._track(source, 1, start, started)
        for request in started:
            self._prompts.put(PromptRequest(request.track_id, request.prompt, start))
        for result in self._track(source.reversed_from(start), -1):
            if not (isinstance(result, FrameResult) and result.index == start):  # yielded on the way forward
                yield result

    def _track(
        self, frames: Iterable[Frame | Fault], step: int, start: int = 0, started: list[PromptRequest] | None = None
    ) -> Iterator[SessionResult]:
        """One pass, from frame `start` on. `started` collects the prompts of that frame, without removed ones."""
        tracks, order = ObjectTracks(self._model, self._rule, self._captions, step), FrameOrder(step)
        for item in frames:
            if self._closed:
                return
            if item.index < start:
                continue
            if isinstance(item, Fault):
                yield item
            elif fault := order.order_fault(item):
                yield fault
            else:
                yield from self._frame(item, tracks, order, start, started)
            if self._captions is not None:
                yield from self._captions.ready()
        yield from tracks.end()
        last, time = order.last or (0, 0.0)
        for request in self._prompts.take_rest():
            wanted = "a frame after it" if request.frame is None else f"frame {request.frame}"
            what = f"Object {request.track_id} was not begun: {wanted} never came. The last frame was {last}."
            yield Fault(last, time, what, request.track_id)

    def _frame(
        self, frame: Frame, tracks: ObjectTracks, order: FrameOrder, start: int, started: list[PromptRequest] | None
    ) -> Iterator[SessionResult]:
        if fault := order.time_fault(frame):
            yield fault
        due = self._prompts.take(frame.index, order.step)
        for track_id in due.removed:
            yield from tracks.remove(track_id)
        for request in due.missed:
            what = f"Object {request.track_id} was not begun: frame {request.frame} has passed. Run the source again."
            yield Fault(frame.index, frame.time, what, request.track_id)
        regions, faults = tracks.track(frame, due.prompts)
        if started is not None:
            failed = {fault.track_id for fault in faults if isinstance(fault, Fault)}
            if frame.index == start:
                started += [request for request in due.prompts if request.track_id not in failed]
            started[:] = [request for request in started if request.track_id not in due.removed]
        yield from faults
        yield FrameResult(frame.index, frame.time, tuple(regions))
        yield from tracks.end_events(frame, regions)
