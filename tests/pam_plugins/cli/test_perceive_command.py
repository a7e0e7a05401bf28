"""`pam perceive`: what each option does, and what is printed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from pam_core.questions import Answer
from pam_core.types import Region
from pam_plugins.datasets.jsonl import read_results
from tests.factories import FakePlugin, Shape, shapes, write_picture, write_pictures
from tests.pam_plugins.cli.conftest import Pam


def regions_of(out: Path) -> list[Region]:
    (perception,) = read_results(out)
    assert perception.error is None
    return list(perception.regions)


def at(shape: Shape, label: str = "") -> str:
    return f"{shape.centre[0]},{shape.centre[1]}{label}"


def corners(shape: Shape) -> str:
    return ",".join(map(str, shape.box))


def test_a_click(pam: Pam, scene: tuple[Path, list[Shape]], tmp_path: Path) -> None:
    path, known = scene
    result = pam(path, "--point", at(known[1]), "--out", tmp_path / "out.jsonl")
    assert result.exit_code == 0
    (region,) = regions_of(tmp_path / "out.jsonl")
    assert np.array_equal(region.mask.array, known[1].mask)
    assert re.search(r"scene\.png +green +0\.75 +A green thing\.", result.stdout)
    assert "1 pictures, 1 regions" in result.stderr


def test_several_points_are_one_region(pam: Pam, scene: tuple[Path, list[Shape]], tmp_path: Path) -> None:
    path, (red, green, blue, _) = scene
    points = ["--point", at(red), "--point", at(green, ",1"), "--point", at(blue, ",0"), "--point", at(blue, ",1")]
    assert pam(path, *points, "--out", tmp_path / "out.jsonl").exit_code == 0
    (region,) = regions_of(tmp_path / "out.jsonl")
    assert region.prompt is not None
    assert region.prompt.labels == (1, 1, 0, 1)
    assert np.array_equal(region.mask.array, red.mask | green.mask)


def test_several_boxes_are_several_regions(pam: Pam, scene: tuple[Path, list[Shape]], tmp_path: Path) -> None:
    path, known = scene
    boxes = [part for shape in known for part in ("--box", corners(shape))]
    assert pam(path, *boxes, "--out", tmp_path / "out.jsonl").exit_code == 0
    assert [region.label for region in regions_of(tmp_path / "out.jsonl")] == ["red", "green", "blue", "yellow"]


def test_points_refine_one_box(pam: Pam, scene: tuple[Path, list[Shape]], tmp_path: Path) -> None:
    path, (red, green, *_) = scene
    pam(path, "--box", "0,0,60,90", "--point", at(green), "--point", at(red, ",0"), "--out", tmp_path / "out.jsonl")
    (region,) = regions_of(tmp_path / "out.jsonl")
    assert region.prompt is not None
    assert (region.prompt.box, region.prompt.labels) == ((0, 0, 60, 90), (1, 0))
    assert region.label == "green"


def test_masks_are_regions_as_drawn(pam: Pam, scene: tuple[Path, list[Shape]], tmp_path: Path) -> None:
    path, known = scene
    masks: list[object] = []
    for number, shape in enumerate(known[:2]):
        drawn = np.repeat(shape.mask[..., None] * np.uint8(255), 3, axis=2)
        masks += ["--mask", write_picture(tmp_path / f"mask{number}.png", drawn)]
    assert pam(path, *masks, "--out", tmp_path / "out.jsonl").exit_code == 0
    for region, shape in zip(regions_of(tmp_path / "out.jsonl"), known[:2], strict=True):
        assert np.array_equal(region.mask.array, shape.mask)


@pytest.mark.parametrize("said", [(), ("--everything",)])
def test_everything_is_found_without_a_prompt(
    pam: Pam, scene: tuple[Path, list[Shape]], tmp_path: Path, said: tuple[str, ...]
) -> None:
    assert pam(scene[0], *said, "--out", tmp_path / "out.jsonl").exit_code == 0
    labels = [region.label for region in regions_of(tmp_path / "out.jsonl")]
    assert sorted(map(str, labels)) == ["blue", "green", "red", "white", "yellow"]


def test_prompts_from_a_file(pam: Pam, scene: tuple[Path, list[Shape]], tmp_path: Path) -> None:
    path, known = scene
    lines = tmp_path / "p.jsonl"
    lines.write_text("".join(json.dumps({"image": path.name, "points": [s.centre]}) + "\n" for s in known))
    assert pam("--prompts", lines, "--out", tmp_path / "out.jsonl").exit_code == 0
    assert [region.label for region in regions_of(tmp_path / "out.jsonl")] == ["red", "green", "blue", "yellow"]


@pytest.mark.parametrize(
    ("lang", "wanted"),
    [
        ("en", {"label": {"en": "red"}, "brief": {"en": "A red thing."}, "explanation": {"en": "red: a colour."}}),
        ("zh", {"label": {"zh": "红色"}, "brief": {"zh": "一个红色的东西。"}}),
        ("en,zh", {"label": {"en": "red", "zh": "红色"}, "brief": {"en": "A red thing.", "zh": "一个红色的东西。"}}),
        (
            " zh , en ,",
            {"label": {"en": "red", "zh": "红色"}, "brief": {"en": "A red thing.", "zh": "一个红色的东西。"}},
        ),
    ],
)
def test_languages(
    pam: Pam, scene: tuple[Path, list[Shape]], tmp_path: Path, lang: str, wanted: dict[str, dict[str, str]]
) -> None:
    path, known = scene
    result = pam(path, "--point", at(known[0]), "--lang", lang, "--out", tmp_path / "out.jsonl")
    assert result.exit_code == 0
    (region,) = regions_of(tmp_path / "out.jsonl")
    assert region.texts == wanted
    for answer in wanted["label"].values():
        assert answer in result.stdout


def test_tasks_and_post_processors(pam: Pam, scene: tuple[Path, list[Shape]], tmp_path: Path) -> None:
    path, known = scene
    said = ["--task", "text", "--task", "label", "--postprocess", "shout", "--out", tmp_path / "out.jsonl"]
    assert pam(path, "--point", at(known[0]), *said).exit_code == 0
    (region,) = regions_of(tmp_path / "out.jsonl")
    assert region.texts == {"text": {"en": ""}, "label": {"en": "RED"}}


def test_a_folder_stands_for_the_pictures_in_it(pam: Pam, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "in", 3)
    paths[1] = paths[1].rename(paths[1].with_suffix(".PNG"))
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    (tmp_path / "in" / "folder.png").mkdir()
    out = tmp_path / "out.jsonl"
    result = pam(tmp_path / "in", paths[0], "--point", "1,1", "--out", out)
    assert result.exit_code == 0
    assert [p.image for p in read_results(out)] == [str(path) for path in paths]


@pytest.mark.parametrize("name", ["report.pdf", "log.h5", "log.hdf", "clip.mpg", "clip.mpeg"])
def test_what_pillow_knows_by_name_only_is_no_picture_of_a_folder(pam: Pam, tmp_path: Path, name: str) -> None:
    write_pictures(tmp_path / "in", 1)
    (tmp_path / "in" / name).write_bytes(b"something else")
    assert pam(tmp_path / "in", "--point", "1,1").exit_code == 0


def test_saving_everything_there_is(pam: Pam, scene: tuple[Path, list[Shape]], tmp_path: Path) -> None:
    save = tmp_path / "new" / "saved"
    result = pam(
        scene[0], "--save", save, "--export", "overlay", "--export", "html", "--export", "coco", "--export", "coco"
    )
    assert result.exit_code == 0
    assert {"scene.overlay.png", "index.html", "coco.json"} <= {path.name for path in save.iterdir()}
    assert not list(save.glob("*.part"))
    assert str(save / "index.html") in result.stderr


def answer(fake: FakePlugin, text: str) -> None:
    fake.model._answer = lambda questions: [Answer(question, text) for question in questions]  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "text", ["[/b] closed", "[bold]loud[/bold]", "[red]", ":cat:", "a [link=x]y[/link]", "back\\"]
)
def test_answers_are_printed_as_they_are(
    pam: Pam, scene: tuple[Path, list[Shape]], fake: FakePlugin, text: str
) -> None:
    """A sign in a picture may say anything; none of it is a command to the terminal."""
    answer(fake, text)
    result = pam(scene[0], "--point", "1,1")
    assert result.exit_code == 0
    assert text in result.stdout


@pytest.mark.parametrize("name", ["a[bold]b.png", "[red].png", "a:cat:.png", "猫.png"])
def test_pictures_of_any_name(pam: Pam, tmp_path: Path, name: str) -> None:
    path = write_picture(tmp_path / "in.png", shapes(40, 30, 2)[0]).rename(tmp_path / name)
    result = pam(path, "--point", "1,1", "--out", tmp_path / "out.jsonl")
    assert result.exit_code == 0
    assert name in result.stdout
    (perception,) = read_results(tmp_path / "out.jsonl")
    assert perception.image == str(path)
    path.write_bytes(b"no picture any more")
    result = pam(path, "--point", "1,1")
    assert result.exit_code == 1
    assert name in result.stderr


def test_a_long_table_is_cut(pam: Pam, tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", shapes(100, 80, 2)[0])
    lines = tmp_path / "p.jsonl"
    lines.write_text('{"points": [[1, 1]]}\n' * 70)
    result = pam(path, "--prompts", lines)
    assert result.stdout.count("A white thing.") == 60
    assert "... and 10 more regions." in result.stderr
