"""English sentences made of a name and measured motion."""

from __future__ import annotations

from pam_plugins.models.lite.facts import Facts, third
from pam_plugins.models.lite.motion import Motion, Point
from pam_plugins.models.lite.naming import Name
from pam_plugins.models.lite.words_en import PLACES, capital, is_plural, subject

_DIRECTIONS = {
    "left": "to the left",
    "right": "to the right",
    "up": "up",
    "down": "down",
    "upper left": "to the upper left",
    "upper right": "to the upper right",
    "lower left": "to the lower left",
    "lower right": "to the lower right",
}
_EDGES = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}
_PLURAL = {"is": "are", "its": "their"}


def describe(name: Name, facts: Facts, motion: Motion) -> str:
    """One sentence; of `facts` the colours are said."""
    said = _listed(phrases(motion))
    if name.noun is not None and is_plural(name.noun.name):
        said = " ".join(_plural(word) for word in said.split(" "))
    return f"{capital(subject(name, facts))} {said}."


def phrases(motion: Motion) -> list[str]:
    """What is told of a motion, in the order in which it happened; verbs in the singular, and verbs come first."""
    if motion.start is None or motion.end is None:
        return ["is not seen"]
    told = []
    if motion.found:
        told.append(f"enters the picture {_EDGES[motion.enters]}" if motion.enters else "comes into sight")
    told.append(_way(motion))
    if motion.growth is not None:
        told.append(
            f"grows to about {motion.growth:.1f} times its area in the picture"
            if motion.growth > 1
            else f"shrinks to about {motion.growth:.0%} of its area in the picture"
        )
    if motion.away:
        told.append(f"is out of sight for about {seconds(motion.away)} in between")
    if motion.lost:
        told.append(f"leaves the picture {_EDGES[motion.leaves]}" if motion.leaves else "goes out of sight")
    return told


def _way(motion: Motion) -> str:
    assert motion.start is not None and motion.end is not None
    if not motion.moves:
        return f"stays {place(motion.end)} of the picture"
    speed = f" at about {rounded(motion.speed)} pixels a second" if motion.speed else ""
    if motion.direction is None:
        return f"moves to and fro{speed}"
    return f"moves {_DIRECTIONS[motion.direction]}{speed}"


def place(point: Point) -> str:
    return PLACES[third(point[1]), third(point[0])]


def rounded(value: float) -> str:
    """To two figures: what is measured is no surer."""
    return f"{float(f'{value:.2g}'):g}"


def seconds(value: float) -> str:
    said = rounded(value)
    return f"{said} second" if said == "1" else f"{said} seconds"


def _plural(word: str) -> str:
    return _PLURAL.get(word, _VERBS.get(word, word))


_VERBS = {
    "enters": "enter",
    "comes": "come",
    "moves": "move",
    "stays": "stay",
    "grows": "grow",
    "shrinks": "shrink",
    "leaves": "leave",
    "goes": "go",
}


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
