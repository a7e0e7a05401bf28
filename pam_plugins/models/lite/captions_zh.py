"""Chinese sentences made of a label and measured facts."""

from __future__ import annotations

from collections.abc import Sequence

from pam_plugins.models.lite.facts import Facts
from pam_plugins.models.lite.naming import Label
from pam_plugins.models.lite.nouns import PERSON, Nouns

UNKNOWN = "物体"

_COLOURS = {
    "black": "黑色",
    "white": "白色",
    "grey": "灰色",
    "red": "红色",
    "orange": "橙色",
    "yellow": "黄色",
    "green": "绿色",
    "blue": "蓝色",
    "purple": "紫色",
    "pink": "粉色",
    "brown": "棕色",
    "beige": "米色",
}
PLACES = {
    (-1, -1): "左上方",
    (-1, 0): "上方",
    (-1, 1): "右上方",
    (0, -1): "左侧",
    (0, 0): "中央",
    (0, 1): "右侧",
    (1, -1): "左下方",
    (1, 0): "下方",
    (1, 1): "右下方",
}
_MEASURE_WORDS = (
    (PERSON, "个"),
    ("n01503061", "只"),  # bird
    ("n01726692", "条"),  # snake
    ("n02512053", "条"),  # fish
    ("n02374451", "匹"),  # horse
    ("n00015388", "只"),  # animal
    ("n02686568", "架"),  # aircraft
    ("n04194289", "艘"),  # ship
    ("n02858304", "艘"),  # boat
    ("n04468005", "列"),  # train
    ("n04576211", "辆"),  # wheeled vehicle
    ("n02913152", "座"),  # building
    ("n03001627", "把"),  # chair
    ("n04379243", "张"),  # table
    ("n11669921", "朵"),  # flower
    ("n13104059", "棵"),  # tree
    ("n00017222", "株"),  # plant
    ("n09359803", "座"),  # mountain
    ("n09416076", "块"),  # rock
    ("n04096066", "条"),  # road
    ("n04546855", "面"),  # wall
    ("n09436708", "片"),  # sky
    ("n12102133", "片"),  # grass
    ("n14845743", "片"),  # water
    ("n09334396", "片"),  # ground
    ("n03365592", "片"),  # floor
)
"""Measure words by synset. A noun has the word of the first synset that it is a kind of, else 个."""


class Chinese:
    """Chinese captions. `nouns` gives hypernyms, for measure words and explanations."""

    def __init__(self, nouns: Nouns) -> None:
        self.nouns = nouns

    @staticmethod
    def label_text(label: Label) -> str:
        return label.noun.zh if label.noun else UNKNOWN

    def explanation(self, label: Label, facts: Facts) -> str:
        """Two hypernyms of the noun in place of a definition, then colour, position and share of the picture."""
        here = f"图中为{_colours(facts)}，位于画面{_place(facts)}，{_share(facts)}。"
        if label.noun is None:
            guesses = "、".join(f"{noun.zh}（{score:.0%}）" for noun, score in label.guesses)
            return f"未能可靠识别，最接近的猜测是{guesses}。{here}"
        kinds = [
            self.nouns[synset].zh for synset in self.nouns.ancestors(label.noun.id) if not self.nouns[synset].general
        ]
        kinds = [kind for kind in dict.fromkeys(kinds) if kind and kind != label.noun.zh][:2]
        kind = "，属于".join([f"一种{kinds[0]}", *kinds[1:]]) if kinds else "一类事物"
        return f"{label.noun.zh}：{kind}。{here}"

    def brief(self, label: Label, facts: Facts) -> str:
        return f"画面{_place(facts)}有{self.subject(label, facts)}。"

    def detailed(self, label: Label, facts: Facts, others: Sequence[Label], text: str | None) -> str:
        """`others`: the labels of all regions of the call, which the indices in `facts` refer to."""
        sentences = [f"画面{_place(facts)}有{self.subject(label, facts)}，{_share(facts)}。"]
        relations = []
        if facts.inside is not None:
            relations.append(f"位于{self._other(label, others[facts.inside])}之内")
        if facts.rests_on is not None:
            relations.append(f"落在{self._other(label, others[facts.rests_on])}上")
        touched = [self._other(label, others[i]) for i in facts.touches if i != facts.rests_on and others[i].noun]
        if touched:
            relations.append(f"与{'、'.join(list(dict.fromkeys(touched))[:3])}相接")
        if relations:
            sentences.append(f"它{'，'.join(relations)}。")
        if text:
            sentences.append(f"上面写着：“{text}”。")
        return "".join(sentences)

    def subject(self, label: Label, facts: Facts) -> str:
        if label.noun is not None and label.noun.id == PERSON:
            return f"一个人，以{_colours(facts)}为主"
        return f"一{self._measure_word(label)}{_colours(facts)}的{self.label_text(label)}"

    def _other(self, label: Label, other: Label) -> str:
        same = label.noun is not None and other.noun is not None and label.noun.id == other.noun.id
        return f"{'另' if same else ''}一{self._measure_word(other)}{self.label_text(other)}"

    def _measure_word(self, label: Label) -> str:
        if label.noun is None:
            return "个"
        return next((word for synset, word in _MEASURE_WORDS if self.nouns.is_a(label.noun.id, synset)), "个")


def _colours(facts: Facts) -> str:
    return "和".join(_COLOURS[colour] for colour in facts.colours)


def _place(facts: Facts) -> str:
    return PLACES[facts.row, facts.column]


def _share(facts: Facts) -> str:
    if facts.share < 0.01:
        return "不到画面面积的百分之一"
    return f"约占画面面积的{facts.share:.0%}"
