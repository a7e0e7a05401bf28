"""What `lite` saw of an object over some frames, and the sentence it makes of it: one noun for the whole clip, chosen
from what its networks say of several frames, and the measured motion.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pam_core.contracts import Picture, UnsupportedError
from pam_core.masks import BoolArray
from pam_core.types import language_codes
from pam_core.video import Clip
from pam_plugins.builtin.lite import words_motion_en
from pam_plugins.builtin.lite.facts import Facts, measure
from pam_plugins.builtin.lite.motion import Motion
from pam_plugins.builtin.lite.naming import Name
from pam_plugins.builtin.lite.words_motion_zh import describe as describe_zh

if TYPE_CHECKING:
    from pam_plugins.builtin.lite.model import LiteModel

SAMPLES = 4
"""At most this many frames of a clip are looked at for its noun: each takes as long as describing a region."""


@dataclass(frozen=True)
class Sample:
    """One frame of a clip, perhaps shrunk, and the object's mask in it (H, W), not empty."""

    picture: Picture
    mask: BoolArray

    @property
    def box(self) -> tuple[float, float, float, float]:
        columns, rows = self.mask.any(axis=0).nonzero()[0], self.mask.any(axis=1).nonzero()[0]
        return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


@dataclass(frozen=True)
class LiteClip:
    """A `Clip` (pam_core.video). `samples` is empty only where the object was never seen, not even before."""

    track_id: int
    first: int
    last: int
    samples: tuple[Sample, ...]
    motion: Motion


def describe_clips(model: LiteModel, clips: Sequence[Clip], languages: Sequence[str]) -> list[dict[str, str]]:
    """A sentence for each clip by language code. Raises UnsupportedError."""
    codes = language_codes(languages)
    model.info.check(["brief"], codes)
    described = []
    for clip in clips:
        if not isinstance(clip, LiteClip):
            raise UnsupportedError(f"Got a clip of {type(clip).__name__}; wanted one cut by lite's tracker.")
        name, facts = _name(model, clip), _facts(clip)
        said = {"en": words_motion_en.describe(name, facts, clip.motion)}
        said["zh"] = describe_zh(model.chinese, name, facts, clip.motion)
        described.append({code: said[code] for code in codes})
    return described


def _name(model: LiteModel, clip: LiteClip) -> Name:
    """The noun that the samples taken together speak for."""
    return model.namer.name_all(
        [
            (model.recognizer.look(s.picture, [(s.mask, s.box)])[0], s.box, model.recognizer.detect(s.picture))
            for s in clip.samples
        ]
    )


def _facts(clip: LiteClip) -> Facts:
    """The colours that most samples agree on; where the object is, its motion says."""
    seen = Counter(measure(sample.picture, [sample.mask])[0].colours for sample in clip.samples)
    return Facts(colours=seen.most_common(1)[0][0], row=0, column=0, share=0.0)
