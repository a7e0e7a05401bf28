"""The nouns the embedded model can say: the ImageNet-1k and COCO classes, "stuff" (sky, grass), and
the WordNet synsets above them.

Loads ``data/nouns.json`` (built by ``tools/build_lite_nouns.py``) with the standard library alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from itertools import count


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
    """How the noun is used: "basic", what people say first ("bird"); "broad", said for want of better ("animal");
    "general", too broad to be a label at all ("artifact"); else empty. Chosen by hand."""

    @property
    def general(self) -> bool:
        return self.level == "general"


class Nouns(Mapping[str, Noun]):
    """All nouns by id, and how they hang together."""

    def __init__(self, nouns: Mapping[str, Noun], imagenet: tuple[str, ...], coco: tuple[str, ...]) -> None:
        self._nouns = nouns
        self.imagenet = imagenet
        """Synset id of each ImageNet-1k class, in class order."""
        self.coco = coco
        """Synset id of each of the 80 COCO classes, in the usual order."""
        self._above: dict[str, tuple[str, ...]] = {}

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
        """Everything above `synset`, without itself: from specific to general, each once.

        Breadth-first, but a noun waits until all its own hyponyms on the way have come, so that "mammal"
        stands before "animal" however short some other path to "animal" is.
        """
        if synset not in self._above:
            last: dict[str, int] = {}  # Each noun's longest distance: the last level it turns up in.
            level = [synset]
            for distance in count(1):
                level = list(dict.fromkeys(up for one in level for up in self[one].hypernyms))
                if not level:
                    break
                last.update(dict.fromkeys(level, distance))
            self._above[synset] = tuple(sorted(last, key=last.__getitem__))
        return self._above[synset]

    def is_a(self, synset: str, ancestor: str) -> bool:
        """Whether `synset` is `ancestor` or a kind of it."""
        return synset == ancestor or ancestor in self.ancestors(synset)
