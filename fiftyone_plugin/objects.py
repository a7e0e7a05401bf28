"""The objects to track in a video: those that labels of its frames are prompts for, or regions of its first frame."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import fiftyone as fo

from fiftyone_plugin.convert import prompt_of
from fiftyone_plugin.mongo import LabelOutline, VideoFrames
from pam_core.contracts import ModelInfo, RegionModel, ReversibleSource
from pam_core.errors import PromptError, VideoError
from pam_core.sessions.session import StreamSession
from pam_core.types import Prompt, Region, Texts
from pam_core.video import Fault, Frame
from pam_plugins.api import perceive
from pam_plugins.options import Options, check_prompt


@dataclass
class PromptedObject:
    """An object with the prompt that its track begins with, on the frame with this index (from 0).

    `texts` holds its label by task and language. All labels of its track share the `instance`.
    """

    track_id: int
    prompt: Prompt
    frame: int
    texts: Texts = field(default_factory=dict)
    instance: fo.Instance = field(default_factory=fo.Instance)

    def to_json(self) -> list[Any]:
        """What its track depends on."""
        return [self.track_id, self.frame, self.prompt.to_json()]


PromptedObjects = Mapping[int, PromptedObject]
"""Objects by track id."""


def objects_of_labels(
    frames: VideoFrames, field: str, ids: Collection[str] | None, size: tuple[int, int], info: ModelInfo
) -> tuple[list[PromptedObject], list[str]]:
    """The objects that labels of the frames' field are prompts for, and an error for each label that cannot be one.

    Labels with one instance or index are one object, which begins with the first of them. Of labels with neither,
    each of the first labelled frame is one; of `ids`, where given, each is.
    """
    chosen = list(_first_labels(frames.outlines(field), ids))
    numbers = sorted({outline.frame_number for outline in chosen})
    labels = {label.id: label for number in numbers for label in frames.labels(field, number)}
    free = (number for number in count(1) if all(number != outline.track_index for outline in chosen))
    objects: dict[int, PromptedObject] = {}
    errors: list[str] = []
    for number, label_id, index, _ in chosen:
        label = labels.get(label_id)
        if label is None:  # deleted meanwhile
            continue
        try:
            prompt = prompt_of(label, *size)
            prompt.check(*size)
            check_prompt(info, prompt)
        except PromptError as error:
            errors.append(f"Frame {number}, label {label.label or label_id}: {error}")
            continue
        track_id = index if index is not None and index not in objects else next(free)
        texts = {"label": {"en": label.label}} if label.label else {}
        instance = label.get_attribute_value("instance", None) or fo.Instance()
        objects[track_id] = PromptedObject(track_id, prompt, number - 1, texts, instance)
    return list(objects.values()), errors


def _first_labels(outlines: Iterable[LabelOutline], ids: Collection[str] | None) -> Iterator[LabelOutline]:
    """The first label of each object; of `ids` only, where given."""
    known: set[Any] = set()
    first: int | None = None
    for outline in outlines:
        if ids is not None and outline.label_id not in ids:
            continue
        first = outline.frame_number if first is None else first
        key = outline.object_key
        if key in known or (key is None and ids is None and outline.frame_number != first):
            continue
        if key is not None:
            known.add(key)
        yield outline


class PromptingSource:
    """The frames of a video on their way to a session, which is prompted with the objects on them.

    Without `objects`, at most `max_objects` regions of the first frame are prompts. Objects without a label get one
    from the model on the frame they begin on. Iterating raises VideoError where there is no region to track.
    """

    def __init__(
        self,
        source: ReversibleSource,
        session: StreamSession,
        model: RegionModel,
        languages: Sequence[str],
        objects: Sequence[PromptedObject],
        max_objects: int,
    ) -> None:
        self._source, self._session = source, session
        self._model, self._max_objects = model, max_objects
        labelled = model.info.tasks.get("label", frozenset())
        self._languages = tuple(code for code in languages if code in labelled)
        self.objects: dict[int, PromptedObject] = {}
        for each in objects:
            self._prompt(each)

    def _prompt(self, each: PromptedObject) -> None:
        self.objects[each.track_id] = each
        self._session.prompt(each.track_id, each.prompt, each.frame)

    def __iter__(self) -> Iterator[Frame | Fault]:
        for item in self._source:
            if isinstance(item, Frame):
                if not self.objects:
                    self._prompt_regions(item)
                self._label(item)
            yield item

    def reversed_from(self, index: int) -> Iterable[Frame | Fault]:
        """The frames from this one back to the first. A source that has them waits for its captions."""
        return self._source.reversed_from(index)

    def _prompt_regions(self, frame: Frame) -> None:
        regions = self._perceive(frame)[: self._max_objects]
        if not regions:
            raise VideoError(
                f"Frame {frame.index + 1}, the first, has no region to track; wanted prompts. Draw boxes or points "
                "on frames and name their field."
            )
        for track_id, region in enumerate(regions, 1):
            texts = {"label": region.texts.get("label", {})}
            self._prompt(PromptedObject(track_id, Prompt(mask=region.mask), frame.index, texts))

    def _label(self, frame: Frame) -> None:
        unlabelled = [each for each in self.objects.values() if each.frame == frame.index and not each.texts]
        if unlabelled and self._languages:
            regions = self._perceive(frame, [each.prompt for each in unlabelled])
            for each, region in zip(unlabelled, regions, strict=True):
                each.texts = {"label": region.texts.get("label", {})}

    def _perceive(self, frame: Frame, prompts: Sequence[Prompt] = ()) -> Sequence[Region]:
        tasks = ("label",) if self._languages else ()
        options = Options(tasks=tasks, languages=self._languages or ("en",), keep_masks=True)
        return perceive(frame.picture, prompts, model=self._model, options=options).regions
