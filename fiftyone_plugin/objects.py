"""Which objects of a video are followed: those that labels of its frames point at, or what is found in its first
frame; and what they are called."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import fiftyone as fo

from fiftyone_plugin.frames import VideoFrames
from fiftyone_plugin.prompts import prompt_of
from pam_core.contracts import ModelInfo, RegionModel, ReversibleSource
from pam_core.errors import PromptError, VideoError
from pam_core.sessions.session import StreamSession
from pam_core.types import Prompt, Region, Texts
from pam_core.video import Fault, Frame
from pam_plugins.api import perceive
from pam_plugins.options import Options, check_prompt


@dataclass
class Followed:
    """An object: its number, where it is on the frame with this index (from 0), and its label by task and language.

    All labels of it share the `instance`.
    """

    track_id: int
    prompt: Prompt
    frame: int
    texts: Texts = field(default_factory=dict)
    instance: fo.Instance = field(default_factory=fo.Instance)

    def to_json(self) -> list[Any]:
        """What its track depends on."""
        return [self.track_id, self.frame, self.prompt.to_json()]


def objects_of_labels(
    frames: VideoFrames, name: str, ids: Collection[str] | None, size: tuple[int, int], info: ModelInfo
) -> tuple[list[Followed], list[str]]:
    """The objects that labels of the frames' field `name` point at, and what is wrong with labels of no use.

    Labels with one instance or index are one object, which begins where it appears first. Of those with neither, each
    of the first labelled frame is one. Of `ids`, where given, each is one unless it shares an instance or index.
    """
    chosen = list(_appearances(frames.outlines(name), ids))
    taken = {index for _, _, index in chosen if index is not None}
    free = (number for number in count(1) if number not in taken)
    objects: list[Followed] = []
    wrong: list[str] = []
    used: set[int] = set()
    numbers = sorted({number for number, _, _ in chosen})
    labels = {label.id: label for number in numbers for label in frames.labels(name, number)}
    for number, label_id, index in chosen:
        label = labels.get(label_id)
        if label is None:  # deleted meanwhile
            continue
        try:
            prompt = prompt_of(label, *size)
            prompt.check(*size)
            check_prompt(info, prompt)
        except PromptError as error:
            wrong.append(f"Frame {number}, label {label.label or label_id}: {error}")
            continue
        instance = label.get_attribute_value("instance", None)
        track_id = index if index is not None and index not in used else next(free)
        used.add(track_id)
        texts = {"label": {"en": label.label}} if label.label else {}
        objects.append(Followed(track_id, prompt, number - 1, texts, instance or fo.Instance()))
    return objects, wrong


def _appearances(
    outlines: Iterable[tuple[int, dict[str, Any]]], ids: Collection[str] | None
) -> Iterator[tuple[int, str, int | None]]:
    """The frame's number, the label's id and its index for each object's first label."""
    known: set[Any] = set()
    first: int | None = None
    for number, outline in outlines:
        if ids is not None and outline["id"] not in ids:
            continue
        first = number if first is None else first
        key = outline["instance"] or outline["index"]
        if key is None:
            if ids is None and number != first:
                continue
        elif key in known:
            continue
        known.add(key)
        yield number, outline["id"], outline["index"]


class Watched:
    """The frames of a source on their way to a session: objects without a name are named where they begin.

    Without `objects`, at most `most` of what is found in the first frame are followed. Iterating raises VideoError
    where nothing is.
    """

    def __init__(
        self,
        source: ReversibleSource,
        session: StreamSession,
        model: RegionModel,
        languages: Sequence[str],
        objects: Sequence[Followed],
        most: int,
    ) -> None:
        self._source, self._session, self._model, self._most = source, session, model, most
        labelled = model.info.tasks.get("label", frozenset())
        self._languages = tuple(code for code in languages if code in labelled)
        self.objects = {each.track_id: each for each in objects}
        for each in objects:
            session.prompt(each.track_id, each.prompt, each.frame)

    def __iter__(self) -> Iterator[Frame | Fault]:
        for item in self._source:
            if isinstance(item, Frame):
                if not self.objects:
                    self._find(item)
                self._name(item)
            yield item

    def reversed_from(self, index: int) -> Iterable[Frame | Fault]:
        """The frames from this one back to the first. A source that has them waits for its captions."""
        return self._source.reversed_from(index)

    def _find(self, frame: Frame) -> None:
        regions = self._perceive(frame)[: self._most]
        if not regions:
            raise VideoError(
                f"Nothing was found in frame {frame.index + 1}, the first; wanted something to follow. Draw boxes or "
                "keypoints on frames and name their field."
            )
        for track_id, region in enumerate(regions, 1):
            prompt = Prompt(mask=region.mask)
            texts = {"label": region.texts.get("label", {})}
            self.objects[track_id] = Followed(track_id, prompt, frame.index, texts)
            self._session.prompt(track_id, prompt, frame.index)

    def _name(self, frame: Frame) -> None:
        unnamed = [each for each in self.objects.values() if each.frame == frame.index and not each.texts]
        if unnamed and self._languages:
            regions = self._perceive(frame, [each.prompt for each in unnamed])
            for each, region in zip(unnamed, regions, strict=True):
                each.texts = {"label": region.texts.get("label", {})}

    def _perceive(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> Sequence[Region]:
        tasks = ("label",) if self._languages else ()
        options = Options(tasks=tasks, languages=self._languages or ("en",), keep_masks=True)
        return perceive(frame.picture, prompts, model=self._model, options=options).regions
