"""The nouns of the embedded model: complete, in order, well named, and hanging together."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import time
from importlib import resources

import pytest

from pam_plugins.models.lite.nouns import Noun, Nouns
from tests.paths import ROOT

CJK = r"\u3400-\u4dbf\u4e00-\u9fff"
CHINESE = re.compile(rf"[A-Za-z{CJK}]*[{CJK}][A-Za-z{CJK}]*")
PERSON, ANIMAL, CAT, DOG = "n00007846", "n00015388", "n02121620", "n02084071"
VEHICLE, CONTAINER, ENTITY = "n04524313", "n03094503", "n00001740"


@pytest.fixture(scope="module")
def nouns() -> Nouns:
    return Nouns.load()


@pytest.fixture(scope="module")
def raw() -> dict:
    path = resources.files("pam_plugins.models.lite") / "data" / "nouns.json"
    return json.loads(path.read_text(encoding="utf-8"))


def shown(nouns: Nouns) -> list[Noun]:
    return [noun for noun in nouns.values() if not noun.general]


def repeated(names: list[str]) -> set[str]:
    lower = [name.casefold() for name in names]
    return {name for name in lower if lower.count(name) > 1}


def test_all_classes_are_there(nouns: Nouns, raw: dict) -> None:
    assert raw["version"] == 1
    assert len(nouns.imagenet) == len(set(nouns.imagenet)) == 1000
    assert len(nouns.coco) == len(set(nouns.coco)) == len(raw["coco_names"]) == 80
    assert set(nouns.imagenet) | set(nouns.coco) <= set(nouns)


@pytest.mark.parametrize(
    ("index", "synset", "name", "chinese"),
    [
        (0, "n01440764", "tench", "丁鱥"),
        (207, "n02099601", "golden retriever", "金毛寻回犬"),
        (281, "n02123045", "tabby cat", "虎斑猫"),
        (282, "n02123159", "tiger cat", "虎纹猫"),
        (285, "n02124075", "Egyptian cat", "埃及猫"),
        (805, "n04254680", "soccer ball", "足球"),
        (909, "n04596742", "wok", "炒锅"),
        (948, "n07742313", "Granny Smith apple", "澳洲青苹果"),
        (999, "n15075141", "toilet paper", "卫生纸"),
    ],
)
def test_imagenet_order(nouns: Nouns, index: int, synset: str, name: str, chinese: str) -> None:
    noun = nouns[nouns.imagenet[index]]
    assert (noun.id, noun.name, noun.zh) == (synset, name, chinese)


def test_imagenet_order_is_by_id_but_for_the_moved_classes(nouns: Nouns, raw: dict) -> None:
    """ImageNet-1k sorts its classes by id, so any slip in the list shows."""
    original = list(nouns.imagenet)
    for index, (before, after) in raw["source"]["moved"].items():
        assert original[int(index)] == after != before
        original[int(index)] = before
    assert original == sorted(original)


def test_coco_order(nouns: Nouns, raw: dict) -> None:
    named = dict(zip(raw["coco_names"], nouns.coco, strict=True))
    assert [raw["coco_names"][i] for i in (0, 2, 15, 41, 62, 79)] == [
        "person",
        "car",
        "cat",
        "cup",
        "tv",
        "toothbrush",
    ]
    other = {name: nouns[synset].name for name, synset in named.items() if nouns[synset].name != name}
    assert other == {
        "stop sign": "street sign",
        "tie": "necktie",
        "skis": "ski",
        "sports ball": "ball",
        "tv": "television",
        "mouse": "computer mouse",
        "remote": "remote control",
        "keyboard": "computer keyboard",
        "hair drier": "hair dryer",
    }
    assert [nouns[s].general for s in nouns.coco] == [False] * 80


def test_every_shown_noun_has_both_names_and_a_gloss(nouns: Nouns) -> None:
    assert not any(nouns[synset].general for synset in nouns.imagenet)
    for noun in shown(nouns):
        assert re.fullmatch(r"[A-Za-z][A-Za-zé' -]*[A-Za-zé]", noun.name), noun
        assert CHINESE.fullmatch(noun.zh), noun
    for noun in nouns.values():
        assert len(noun.gloss) > 6, noun
        assert noun.lemmas and all(noun.lemmas), noun
        assert '"' not in noun.gloss, noun
        assert noun.gloss == noun.gloss.strip(" ;:,"), noun
        assert noun.gloss.count("(") == noun.gloss.count(")"), noun


def test_names_are_unique(nouns: Nouns) -> None:
    classes = [nouns[synset] for synset in nouns.imagenet]
    assert not repeated([noun.name for noun in classes])
    assert not repeated([noun.zh for noun in classes])
    assert repeated([noun.name for noun in shown(nouns)]) == {"kite"}  # The bird and the toy.
    assert not repeated([noun.zh for noun in shown(nouns)])


def test_homonyms_part_ways(nouns: Nouns) -> None:
    bird, machine = nouns[nouns.imagenet[134]], nouns[nouns.imagenet[517]]
    assert (bird.name, bird.zh, machine.name, machine.zh) == ("crane", "鹤", "construction crane", "起重机")
    assert nouns["n01608432"].zh == "鸢"
    assert nouns["n03621473"].zh == "风筝"


def test_hypernyms_lead_to_the_root_without_cycles(nouns: Nouns) -> None:
    for synset, noun in nouns.items():
        assert noun.id == synset
        assert len(set(noun.hypernyms)) == len(noun.hypernyms)
        above = nouns.ancestors(synset)
        assert synset not in above
        assert len(set(above)) == len(above)
        assert synset == ENTITY or above[-1] == ENTITY
    assert nouns.ancestors(ENTITY) == ()


def test_ancestors_run_from_specific_to_general(nouns: Nouns) -> None:
    for synset in nouns:
        above = nouns.ancestors(synset)
        place = {up: i for i, up in enumerate(above)}
        for up in above:
            assert all(place[up] < place[further] for further in nouns[up].hypernyms)
    names = [nouns[up].name for up in nouns.ancestors("n02123045") if not nouns[up].general]
    assert names == ["domestic cat", "cat", "domestic animal", "feline", "carnivore", "mammal", "animal"]


def test_is_a(nouns: Nouns) -> None:
    tabby = nouns.imagenet[281]
    assert nouns.is_a(tabby, tabby)
    assert nouns.is_a(tabby, CAT)
    assert nouns.is_a(CAT, ANIMAL)
    assert nouns.is_a(tabby, ANIMAL)
    assert not nouns.is_a(CAT, tabby)
    assert not nouns.is_a(tabby, DOG)
    assert not nouns.is_a(PERSON, ANIMAL)
    assert not nouns.is_a(tabby, "n99999999")


def test_person_is_no_class_of_imagenet_and_no_animal(nouns: Nouns) -> None:
    assert nouns.coco[0] == PERSON
    assert {nouns[synset].name for synset in nouns.imagenet if nouns.is_a(synset, PERSON)} == {
        "baseball player",
        "bridegroom",
        "scuba diver",
    }
    assert PERSON not in nouns.imagenet
    assert all(nouns[up].general for up in nouns.ancestors(PERSON))


def test_detector_and_classifier_agree(nouns: Nouns, raw: dict) -> None:
    """COCO classes stand above, or are, the ImageNet classes that show the same thing."""
    pairs = [("elephant", 386), ("bear", 388), ("cow", 345), ("tv", 851), ("cup", 968), ("handbag", 748)]
    pairs += [("sink", 896), ("bird", 22), ("car", 817), ("truck", 717), ("bottle", 907), ("chair", 765)]
    pairs += [("sports ball", 805), ("apple", 948), ("couch", 831), ("tie", 457), ("skis", 795), ("horse", 339)]
    named = dict(zip(raw["coco_names"], nouns.coco, strict=True))
    for name, index in pairs:
        assert nouns.is_a(nouns.imagenet[index], named[name]), name


def test_vehicles_are_no_containers(nouns: Nouns) -> None:
    for index in (407, 444, 468, 555, 671, 817, 866):
        assert nouns.is_a(nouns.imagenet[index], VEHICLE)
        assert not nouns.is_a(nouns.imagenet[index], CONTAINER)


def test_empty_words_are_general(nouns: Nouns) -> None:
    empty = "n00001740 n00001930 n00002684 n00003553 n00004475 n00021939 n00020827 n03575240 n03183080 n01886756"
    useful = "n00015388 n01861778 n01503061 n02512053 n02159955 n07555863 n07705931 n04524313 n03405725 n04451818"
    assert all(nouns[synset].general for synset in empty.split())
    assert not any(nouns[synset].general for synset in useful.split())
    named = [s for s in nouns.imagenet if any(not nouns[up].general for up in nouns.ancestors(s))]
    assert len(named) >= 980  # Nearly every class can fall back to a broader word.


def test_data_is_small_sourced_and_names_its_changes(raw: dict) -> None:
    path = resources.files("pam_plugins.models.lite") / "data" / "nouns.json"
    assert len(path.read_bytes()) < 500_000
    assert "WordNet 3.0 Copyright 2006 by Princeton University" in raw["source"]["notice"]
    changed = {*raw["source"]["hypernyms_replaced"], *raw["source"]["glosses_replaced"]}
    assert changed <= set(raw["synsets"])


def test_data_matches_the_hand_made_names(nouns: Nouns) -> None:
    with (ROOT / "tools" / "lite_names.tsv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    table = {row["synset"]: (row["en"], row["zh"], row["level"]) for row in rows}
    assert len(table) == len(rows)
    assert table == {noun.id: (noun.name, noun.zh, noun.level) for noun in nouns.values()}


def test_loading_is_quick() -> None:
    took = []
    for _ in range(5):
        start = time.perf_counter()
        Nouns.load()
        took.append(time.perf_counter() - start)
    assert min(took) < 0.05


def test_module_needs_only_the_standard_library() -> None:
    source = ROOT / "pam_plugins" / "models" / "lite" / "nouns.py"
    code = (
        f"import runpy, sys; runpy.run_path({str(source)!r}); print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
