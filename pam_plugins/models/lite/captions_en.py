"""English sentences made of a label and measured facts."""

from __future__ import annotations

from collections.abc import Sequence

from pam_plugins.models.lite.facts import Facts
from pam_plugins.models.lite.naming import Label
from pam_plugins.models.lite.nouns import PERSON

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
_UNCOUNTABLE = (
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
_WITH_THE = ("sky", "ground", "floor")


def label_text(label: Label) -> str:
    return label.noun.name if label.noun else UNKNOWN


def explanation(label: Label, facts: Facts) -> str:
    """The noun's definition, then colour, position and share of the picture."""
    here = f"Here: {_colours(facts)}, {_place(facts)} of the picture, {_share(facts)}."
    if label.noun is None:
        guesses = ", ".join(f"{noun.name} ({score:.0%})" for noun, score in label.guesses)
        return f"Not recognised with enough confidence; the closest guesses are {guesses}. {here}"
    return f"{capital(label.noun.name)}: {label.noun.gloss.rstrip('. ')}. {here}"


def brief(label: Label, facts: Facts) -> str:
    return f"{capital(subject(label, facts))} {_place(facts)} of the picture."


def detailed(label: Label, facts: Facts, others: Sequence[Label], text: str | None) -> str:
    """`others`: the labels of all regions of the call, which the indices in `facts` refer to."""
    sentences = [f"{capital(subject(label, facts))} {_place(facts)} of the picture, {_share(facts)}."]
    relations = []
    if facts.inside is not None:
        relations.append(f"lies within {_other(label, others[facts.inside])}")
    if facts.rests_on is not None:
        relations.append(f"rests on {_other(label, others[facts.rests_on])}")
    touched = [_other(label, others[i]) for i in facts.touches if i != facts.rests_on and others[i].noun]
    if touched:
        relations.append(f"touches {_listed(list(dict.fromkeys(touched))[:3])}")
    if relations:
        plural = label.noun is not None and is_plural(label.noun.name)
        if plural:
            relations = [_PLURAL_VERBS[verb] + rest for verb, rest in (r.split(" ", 1) for r in relations)]
        sentences.append(f"{'They' if plural else 'It'} {_listed(relations)}.")
    if text:
        sentences.append(f"On it is written: “{text}”.")
    return " ".join(sentences)


_PLURAL_VERBS = {"lies": "lie ", "rests": "rest ", "touches": "touch "}


def subject(label: Label, facts: Facts) -> str:
    noun = label_text(label)
    if label.noun is not None and label.noun.id == PERSON:
        return f"a person, mostly {_colours(facts)},"
    return with_article(f"{_colours(facts)} {noun}".strip())


def _other(label: Label, other: Label) -> str:
    noun = label_text(other)
    same = label.noun is not None and other.noun is not None and label.noun.id == other.noun.id
    return f"another {noun}" if same and with_article(noun).startswith(("a ", "an ")) else with_article(noun)


def with_article(noun: str) -> str:
    """The noun with its article: "a", "an" or "the", none if it is plural or uncountable."""
    if is_plural(noun) or noun.endswith(_UNCOUNTABLE):
        return noun
    if noun.endswith(_WITH_THE):
        return f"the {noun}"
    lower = noun.lower()
    vowel = lower.startswith(("a", "e", "i", "o", "u", "hour")) and not lower.startswith(
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
