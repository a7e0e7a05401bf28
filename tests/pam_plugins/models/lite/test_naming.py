"""How answers of three networks become one noun."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pam_core.media.images import read_picture
from pam_core.types import Prompt
from pam_plugins.models.lite.naming import (
    EXTRA_HYPONYMS,
    MIN_EXPECTED_REWARD,
    ClassScores,
    Detection,
    Label,
    Namer,
    box_iou,
    calibrated,
    detected_shares,
)
from pam_plugins.models.lite.networks.stuff_head import CLASSES
from pam_plugins.models.lite.nouns import Nouns
from pam_plugins.models.lite.recognizer import Recognizer
from pam_plugins.models.lite.segmenter import Segmenter
from tests.paths import PHOTOS

BOX = (10.0, 10.0, 110.0, 110.0)
ELSEWHERE = (200.0, 200.0, 300.0, 300.0)
NOUNS = Nouns.load()
NAMER = Namer(NOUNS)
IMAGENET = {NOUNS[synset].name: index for index, synset in enumerate(NOUNS.imagenet)}
COCO = {NOUNS[synset].name: synset for synset in NOUNS.coco}
STUFF = {c.name: index for index, c in enumerate(CLASSES)}


def class_scores(things: dict[str, float] | None = None, stuff: dict[str, float] | None = None) -> ClassScores:
    """Probabilities by name; what is left over is spread over all things, or is no stuff."""
    thing = np.zeros(len(NOUNS.imagenet))
    for name, share in (things or {}).items():
        thing[IMAGENET[name]] = share
    thing += (1 - thing.sum()) / len(thing)
    kinds = np.zeros(len(CLASSES))
    for name, share in (stuff or {}).items():
        kinds[STUFF[name]] = share
    kinds[0] += 1 - kinds.sum()
    return ClassScores(thing, kinds)


def named(of: ClassScores, *detections: Detection) -> str | None:
    name = NAMER.name(of, BOX, detections)
    return name.noun.name if name.noun else None


def detected(name: str, score: float, box: tuple[float, float, float, float] = BOX) -> Detection:
    return Detection(box, score, COCO[name])


def test_a_sure_class_is_the_name() -> None:
    assert named(class_scores({"golden retriever": 0.9})) == "golden retriever"


def test_breeds_that_disagree_are_a_dog() -> None:
    breeds = ("golden retriever", "beagle", "pug", "Chihuahua", "boxer dog")
    assert {*breeds} <= {*IMAGENET} or pytest.fail("the breeds are named otherwise")
    assert named(class_scores(dict.fromkeys(breeds, 0.18))) == "dog"


def test_kinds_of_animal_that_disagree_are_an_animal_and_not_one_of_them() -> None:
    kinds = ("beagle", "tabby cat", "hen", "goldfish", "cow", "zebra")
    assert named(class_scores(dict.fromkeys(kinds, 0.16))) == "animal"


def test_nothing_agreed_on_is_no_name() -> None:
    for nothing in (
        class_scores(),
        class_scores(dict.fromkeys(("beagle", "lemon", "palace", "trombone", "envelope", "canoe"), 0.12)),
    ):
        name = NAMER.name(nothing, BOX, ())
        assert name.noun is None
        assert len(name.guesses) == 3


def test_a_person_is_named_by_the_detector() -> None:
    unsure = class_scores({"suit": 0.3, "Windsor tie": 0.3})
    assert named(unsure) != "person"
    assert named(unsure, detected("person", 0.8)) == "person"
    assert named(unsure, detected("person", 0.8, ELSEWHERE)) != "person"


PART_OF_BOX = (10.0, 10.0, 110.0, 250.0)


@pytest.mark.parametrize("garment", ["suit", "Windsor tie", "military uniform", "cuirass"])
def test_a_region_that_fits_a_persons_box_is_not_a_garment(garment: str) -> None:
    worn = class_scores({garment: 0.9})
    middling = detected("person", 0.4)
    assert named(worn) == garment
    assert named(worn, middling) == "person"
    assert named(worn, middling, detected("necktie", 0.4)) == "person"
    assert NAMER.name(worn, BOX, [middling]).score > 0.6


def test_a_garment_within_a_persons_box_keeps_its_name() -> None:
    assert named(class_scores({"Windsor tie": 0.9}), detected("person", 0.4, PART_OF_BOX)) == "Windsor tie"


def test_a_persons_box_rules_out_garments_only() -> None:
    middling = detected("person", 0.4)
    assert named(class_scores({"golden retriever": 0.9}), middling) == "golden retriever"
    assert named(class_scores({"suit": 0.9}), detected("dog", 0.4)) == "suit"


@pytest.mark.parametrize(
    ("photo", "click"), [("mariachi.jpg", (782.0, 282.0)), ("canteen.jpg", (189.0, 82.0))], ids=["gown", "vest"]
)
def test_a_click_on_a_whole_man_is_a_person(photo: str, click: tuple[float, float]) -> None:
    picture, cpu = read_picture(PHOTOS / photo), torch.device("cpu")
    segmenter, recognizer = Segmenter.load(cpu), Recognizer.load(cpu, NOUNS)
    detections = recognizer.detect(picture)
    [candidate] = segmenter.segment(
        segmenter.embed(picture),
        picture.shape[:2],
        [Prompt.at(*click)],
        objects=[(detection.box, detection.score) for detection in detections],
    )
    rows, columns = np.flatnonzero(candidate.mask.any(1)), np.flatnonzero(candidate.mask.any(0))
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    [scores] = recognizer.classify(picture, [(candidate.mask, box)])
    name = NAMER.name(scores, box, detections)
    assert name.noun is not None and name.noun.name == "person"


def test_a_detection_settles_which_kind_the_classifier_means() -> None:
    cup_or_cat = class_scores({"coffee mug": 0.5, "tabby cat": 0.24, "tiger cat": 0.24})
    assert named(cup_or_cat, detected("cup", 0.9)) == "cup"
    assert named(cup_or_cat, detected("cat", 0.9)) == "cat"


def test_a_sure_classifier_is_more_specific_than_the_detector() -> None:
    assert named(class_scores({"coffee mug": 0.99}), detected("cup", 0.9)) == "coffee mug"
    assert named(class_scores({"golden retriever": 0.99}), detected("dog", 0.9)) == "golden retriever"


def test_stuff_is_named_by_its_head() -> None:
    assert named(class_scores({"lakeside": 0.5}, {"sky": 0.9})) == "sky"
    assert named(class_scores({"palace": 0.9}, {"building": 0.9})) == "building"
    assert named(class_scores({"tabby cat": 0.95}, {"grass": 0.1})) == "tabby cat"


def test_what_agrees_adds_up() -> None:
    alone = NAMER.name(class_scores({"beagle": 0.5, "pug": 0.4}, {"grass": 0.2}), BOX, ())
    seen = NAMER.name(class_scores({"beagle": 0.5, "pug": 0.4}, {"grass": 0.2}), BOX, [detected("dog", 0.6)])
    for name in (alone, seen):
        assert name.noun is not None and name.noun.name == "dog"
    assert 0.6 < alone.score < seen.score < 0.9


def test_the_chance_of_being_right_grows_with_the_share_but_less() -> None:
    probabilities = [calibrated(share) for share in (0.0, 0.2, 0.5, 0.8, 1.0)]
    assert probabilities == sorted(probabilities)
    assert (probabilities[0], probabilities[2], probabilities[4]) == (0, 0.5, 1)
    assert 0.2 < probabilities[1] < 0.5 < probabilities[3] < 0.8


@given(
    seed=st.integers(0, 2**32 - 1),
    peakedness=st.floats(0.01, 10),
    seen=st.lists(st.tuples(st.sampled_from(NOUNS.coco), st.floats(0, 1)), max_size=5),
)
def test_any_answers_give_a_score_between_0_and_1(
    seed: int, peakedness: float, seen: list[tuple[str, float]]
) -> None:
    random = np.random.default_rng(seed)
    scores = ClassScores(
        random.dirichlet(np.full(1000, peakedness)), random.dirichlet(np.full(len(CLASSES), peakedness))
    )
    name: Label = NAMER.name(scores, BOX, [Detection(BOX, score, synset) for synset, score in seen])
    assert 0 <= name.score <= 1 + 1e-9
    assert name.noun is None or (not name.noun.general and name.score >= MIN_EXPECTED_REWARD)
    assert [share for _, share in name.guesses] == sorted((s for _, s in name.guesses), reverse=True)


@given(st.lists(st.tuples(st.sampled_from(NOUNS.coco), st.floats(0, 1)), max_size=8))
def test_detections_never_take_the_whole_distribution(seen: list[tuple[str, float]]) -> None:
    shares = detected_shares(BOX, [Detection(BOX, score, synset) for synset, score in seen])
    assert sum(shares.values()) <= 0.95 + 1e-9
    assert all(share > 0 for share in shares.values())


def test_extra_hyponyms_are_imagenet_classes_that_wordnet_puts_elsewhere() -> None:
    for synset, kinds in EXTRA_HYPONYMS.items():
        assert synset in NOUNS.coco
        for kind in kinds:
            assert kind in NOUNS.imagenet
            assert not NOUNS.is_a(kind, synset), "WordNet says so already"


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        ((0, 0, 10, 10), (0, 0, 10, 10), 1.0),
        ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3),
        ((0, 0, 10, 10), (10, 0, 20, 10), 0.0),
        ((0, 0, 10, 10), (20, 20, 30, 30), 0.0),
    ],
)
def test_box_iou(a: tuple, b: tuple, iou: float) -> None:
    assert box_iou(a, b) == pytest.approx(iou)
    assert box_iou(b, a) == pytest.approx(iou)
