"""Sentences: grammatical in both languages, and never a fact that was not measured."""

from __future__ import annotations

import pytest

from pam_plugins.models.lite import captions_en
from pam_plugins.models.lite.captions_zh import Chinese
from pam_plugins.models.lite.facts import Facts
from pam_plugins.models.lite.naming import Label
from pam_plugins.models.lite.nouns import Noun, Nouns

NOUNS = Nouns.load()
CHINESE = Chinese(NOUNS)
MIDDLE = Facts(("red",), 0, 0, 0.1)


def noun(name: str) -> Noun:
    return next(n for n in NOUNS.values() if n.name == name)


def label_of(name: str, score: float = 0.9) -> Label:
    return Label(noun(name), score)


UNKNOWN = Label(None, 0.1, ((noun("lemon"), 0.1), (noun("beagle"), 0.08)))


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("cup", "a cup"),
        ("apple", "an apple"),
        ("umbrella", "an umbrella"),
        ("ukulele", "a ukulele"),
        ("hourglass", "an hourglass"),
        ("unicycle", "a unicycle"),
        ("sunglasses", "sunglasses"),
        ("grass", "grass"),
        ("water", "water"),
        ("sky", "the sky"),
        ("Egyptian cat", "an Egyptian cat"),
    ],
)
def test_articles(name: str, phrase: str) -> None:
    assert captions_en.with_article(name) == phrase


def test_brief_captions() -> None:
    sky = Facts(("blue",), -1, 0, 0.4)
    assert captions_en.brief(label_of("cup"), MIDDLE) == "A red cup in the middle of the picture."
    assert captions_en.brief(label_of("sky"), sky) == "The blue sky at the top of the picture."
    assert captions_en.brief(UNKNOWN, MIDDLE) == "A red object in the middle of the picture."
    assert CHINESE.brief(label_of("cup"), MIDDLE) == "画面中央有一个红色的杯子。"
    assert CHINESE.brief(label_of("sky"), sky) == "画面上方有一片蓝色的天空。"


def test_a_detailed_caption_tells_relations_and_writing() -> None:
    others = [label_of("cup"), label_of("dining table"), label_of("cup"), UNKNOWN]
    facts = Facts(("red", "white"), 1, -1, 0.25, touches=(1, 2, 3), rests_on=1)
    assert captions_en.detailed(others[0], facts, others, "MILK") == (
        "A red and white cup at the bottom left of the picture, about a quarter of its area. "
        "It rests on a dining table and touches another cup. On it is written: “MILK”."
    )
    said = CHINESE.detailed(others[0], facts, others, "MILK")
    assert "落在一张餐桌上" in said and "与另一个杯子相接" in said and "MILK" in said


def test_plural_nouns_take_plural_verbs() -> None:
    others = [label_of("sunglasses"), label_of("dining table")]
    facts = Facts(("black",), 0, 0, 0.1, touches=(1,), rests_on=1)
    assert "They rest on a dining table." in captions_en.detailed(others[0], facts, others, None)


def test_nothing_is_said_that_was_not_measured() -> None:
    for said in (
        captions_en.detailed(label_of("cup"), MIDDLE, [label_of("cup")], None),
        CHINESE.detailed(label_of("cup"), MIDDLE, [label_of("cup")], None),
    ):
        assert not any(word in said for word in ("touch", "rest", "lies", "written", "相接", "落在", "位于", "写着"))


def test_an_unknown_region_says_what_it_may_be_and_how_unsure() -> None:
    said = captions_en.explanation(UNKNOWN, MIDDLE)
    assert said.startswith("Not recognised with enough confidence; the closest guesses are lemon (10%), beagle (8%).")
    assert "柠檬（10%）" in CHINESE.explanation(UNKNOWN, MIDDLE)


@pytest.mark.parametrize("synset", [noun.id for noun in NOUNS.values() if not noun.general][::7])
def test_every_noun_makes_sentences(synset: str) -> None:
    name = Label(NOUNS[synset], 0.9)
    for said in (captions_en.brief(name, MIDDLE), captions_en.explanation(name, MIDDLE)):
        assert said[0].isupper() or not said[0].isalpha()
        assert said.endswith(".") and "  " not in said and ".." not in said
    for said in (CHINESE.brief(name, MIDDLE), CHINESE.explanation(name, MIDDLE)):
        assert said.endswith("。") and " " not in said and "一一" not in said
