"""English sentences made of a label and measured motion."""

from __future__ import annotations

from pam_plugins.models.lite.captions_en import PLACES, capital, is_plural, subject
from pam_plugins.models.lite.facts import Facts, third
from pam_plugins.models.lite.motion import Motion, Point
from pam_plugins.models.lite.naming import Label

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


def describe(label: Label, facts: Facts, motion: Motion) -> str:
    """One sentence: the label with its colours (nothing else of `facts`), then the motion."""
    predicate = _listed(phrases(motion))
    if label.noun is not None and is_plural(label.noun.name):
        predicate = " ".join(_plural(word) for word in predicate.split(" "))
    return f"{capital(subject(label, facts))} {predicate}."


def phrases(motion: Motion) -> list[str]:
    """Verb phrases of a motion in the order of events, each beginning with its verb in the singular."""
    if motion.start is None or motion.end is None:
        return ["is not seen"]
    parts = []
    if motion.found:
        parts.append(f"enters the picture {_EDGES[motion.enters]}" if motion.enters else "comes into sight")
    parts.append(_path(motion))
    if motion.growth is not None:
        parts.append(
            f"grows to about {motion.growth:.1f} times its area in the picture"
            if motion.growth > 1
            else f"shrinks to about {motion.growth:.0%} of its area in the picture"
        )
    if motion.away:
        parts.append(f"is out of sight for about {seconds(motion.away)} in between")
    if motion.lost:
        parts.append(f"leaves the picture {_EDGES[motion.leaves]}" if motion.leaves else "goes out of sight")
    return parts


def _path(motion: Motion) -> str:
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
    """Two significant digits, as exact as the measurement."""
    return f"{float(f'{value:.2g}'):g}"


def seconds(value: float) -> str:
    number = rounded(value)
    return f"{number} second" if number == "1" else f"{number} seconds"


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
