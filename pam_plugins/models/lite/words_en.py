"""English sentences made of a name and measured facts."""

from __future__ import annotations

from collections.abc import Sequence

from pam_plugins.models.lite.facts import Facts
from pam_plugins.models.lite.naming import Name

PERSON = "n00007846"
UNKNOWN = "object"

PLACES = {
    (-1, -1): "at the top left",
    (-1, 0): "at the top",
    (-1, 1): "at the top right",
    (0, -1): "on the left",
    (0, 0): "in the middle",
    (0, 1): "on the right",
    (1, -1): "at the bottom left",
    (1, 0): "at the bottom",
    (1, 1): "at the bottom right",
}
_PLURAL = (
    "glasses",
    "binoculars",
    "jeans",
    "trunks",
    "pajamas",
    "maracas",
    "scissors",
    "skis",
    "clogs",
    "goggles",
)
_UNCOUNTED = (
    "ice cream",
    "broccoli",
    "toilet paper",
    "guacamole",
    "espresso",
    "red wine",
    "chocolate sauce",
    "dough",
    "grass",
    "water",
    "clothing",
    "sports equipment",
    "armor",
)
_ONLY_ONE = ("sky", "ground", "floor")


def label(name: Name) -> str:
    return name.noun.name if name.noun else UNKNOWN


def explanation(name: Name, facts: Facts) -> str:
    """The definition of the noun, and what the picture adds to it."""
    here = f"Here: {_colours(facts)}, {_place(facts)} of the picture, {_share(facts)}."
    if name.noun is None:
        guesses = ", ".join(f"{noun.name} ({score:.0%})" for noun, score in name.guesses)
        return f"Not recognised with enough confidence; the closest guesses are {guesses}. {here}"
    return f"{capital(name.noun.name)}: {name.noun.gloss.rstrip('. ')}. {here}"


def brief(name: Name, facts: Facts) -> str:
    return f"{capital(subject(name, facts))} {_place(facts)} of the picture."


def detailed(name: Name, facts: Facts, others: Sequence[Name], text: str | None) -> str:
    """`others`: the names of all regions of the call, which the indices in `facts` refer to."""
    sentences = [f"{capital(subject(name, facts))} {_place(facts)} of the picture, {_share(facts)}."]
    relations = []
    if facts.inside is not None:
        relations.append(f"lies within {_other(name, others[facts.inside])}")
    if facts.rests_on is not None:
        relations.append(f"rests on {_other(name, others[facts.rests_on])}")
    touched = [_other(name, others[i]) for i in facts.touches if i != facts.rests_on and others[i].noun]
    if touched:
        relations.append(f"touches {_listed(list(dict.fromkeys(touched))[:3])}")
    if relations:
        plural = name.noun is not None and is_plural(name.noun.name)
        if plural:
            relations = [_PLURAL_VERBS[verb] + rest for verb, rest in (r.split(" ", 1) for r in relations)]
        sentences.append(f"{'They' if plural else 'It'} {_listed(relations)}.")
    if text:
        sentences.append(f"On it is written: “{text}”.")
    return " ".join(sentences)


_PLURAL_VERBS = {"lies": "lie ", "rests": "rest ", "touches": "touch "}


def subject(name: Name, facts: Facts) -> str:
    noun = label(name)
    if name.noun is not None and name.noun.id == PERSON:
        return f"a person, mostly {_colours(facts)},"
    return with_article(f"{_colours(facts)} {noun}".strip())


def _other(name: Name, other: Name) -> str:
    noun = label(other)
    same = name.noun is not None and other.noun is not None and name.noun.id == other.noun.id
    return f"another {noun}" if same and with_article(noun).startswith(("a ", "an ")) else with_article(noun)


def with_article(noun: str) -> str:
    """The noun with "a", "an" or "the" (of which there is one), or without where plural or not counted."""
    if is_plural(noun) or noun.endswith(_UNCOUNTED):
        return noun
    if noun.endswith(_ONLY_ONE):
        return f"the {noun}"
    sounded = noun.lower()
    vowel = sounded.startswith(("a", "e", "i", "o", "u", "hour")) and not sounded.startswith(
        ("uni", "eu", "one", "use", "uku")
    )
    return f"{'an' if vowel else 'a'} {noun}"


def is_plural(noun: str) -> bool:
    return noun.endswith(_PLURAL)


def _colours(facts: Facts) -> str:
    return " and ".join(facts.colours)


def _place(facts: Facts) -> str:
    return PLACES[facts.row, facts.column]


def _share(facts: Facts) -> str:
    share = facts.share
    for low, high, words in (
        (0.0, 0.01, "less than a hundredth of its area"),
        (0.22, 0.28, "about a quarter of its area"),
        (0.30, 0.37, "about a third of its area"),
        (0.45, 0.55, "about half of its area"),
        (0.64, 0.70, "about two thirds of its area"),
        (0.90, 1.01, "nearly all of its area"),
    ):
        if low <= share < high:
            return words
    return f"about {share:.0%} of its area"


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]
