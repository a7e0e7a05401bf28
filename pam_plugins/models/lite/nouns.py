"""The label vocabulary of lite: the ImageNet-1k and COCO classes, "stuff" (sky, grass), and their WordNet hypernyms.

Loads ``data/nouns.json`` (built by ``tools/build_lite_nouns.py``) with the standard library alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from itertools import count

PERSON = "n00007846"


@dataclass(frozen=True, slots=True)
class Noun:
    """One WordNet noun synset with the names a person would use for it."""

    id: str
    """WordNet 3.0 id, such as ``n02123045``."""
    name: str
    """Everyday English name, lower case but for proper names."""
    zh: str
    """Chinese name; empty only where the noun is general."""
    lemmas: tuple[str, ...]
    """WordNet's words for it, the usual one first."""
    gloss: str
    """A short English definition."""
    hypernyms: tuple[str, ...]
    """Ids of the synsets directly above; empty at the root."""
    level: str
    """"basic" for a basic-level noun ("bird"), "broad" for a label of last resort ("animal"), "general" for one too
    broad to be a label ("artifact"), else empty. Assigned by hand."""

    @property
    def general(self) -> bool:
        return self.level == "general"


class Nouns(Mapping[str, Noun]):
    """All nouns by id, with their hypernym hierarchy."""

    def __init__(self, nouns: Mapping[str, Noun], imagenet: tuple[str, ...], coco: tuple[str, ...]) -> None:
        self._nouns = nouns
        self.imagenet = imagenet
        """Synset id of each ImageNet-1k class, in class order."""
        self.coco = coco
        """Synset id of each of the 80 COCO classes, in the usual order."""
        self._ancestors: dict[str, tuple[str, ...]] = {}

    @classmethod
    def load(cls) -> Nouns:
        """Read the table that ships inside the package."""
        path = resources.files("pam_plugins.models.lite") / "data" / "nouns.json"
        data = json.loads(path.read_text(encoding="utf-8"))
        nouns = {
            synset: Noun(
                synset, n["name"], n["zh"], tuple(n["lemmas"]), n["gloss"], tuple(n["hypernyms"]), n["level"]
            )
            for synset, n in data["synsets"].items()
        }
        return cls(nouns, tuple(data["imagenet"]), tuple(data["coco"]))

    def __getitem__(self, synset: str) -> Noun:
        return self._nouns[synset]

    def __iter__(self) -> Iterator[str]:
        return iter(self._nouns)

    def __len__(self) -> int:
        return len(self._nouns)

    def ancestors(self, synset: str) -> tuple[str, ...]:
        """All hypernyms of `synset`, direct and indirect, from specific to general, each once.

        Ordered by the longest path, so that "mammal" precedes "animal" even where a shorter path leads to "animal".
        """
        if synset not in self._ancestors:
            distances: dict[str, int] = {}  # longest distance of each hypernym
            level = [synset]
            for distance in count(1):
                level = list(dict.fromkeys(up for one in level for up in self[one].hypernyms))
                if not level:
                    break
                distances.update(dict.fromkeys(level, distance))
            self._ancestors[synset] = tuple(sorted(distances, key=distances.__getitem__))
        return self._ancestors[synset]

    def is_a(self, synset: str, ancestor: str) -> bool:
        """Whether `synset` is `ancestor` or a kind of it."""
        return synset == ancestor or ancestor in self.ancestors(synset)
