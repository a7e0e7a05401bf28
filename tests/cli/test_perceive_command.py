"""`pam perceive`: what each option does, what each misuse is told, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from pam_core.contracts import Picture
from pam_core.types import Perception, Region
from pam_plugins.cli import app, console
from pam_plugins.hookspecs import hookimpl
from pam_plugins.manager import get_plugins
from pam_plugins.results import read_results
from tests.factories import FakePlugin, Shape, shapes, write_picture, write_pictures

Pam = Callable[..., Result]


@pytest.fixture
def pam(fake: FakePlugin, monkeypatch: pytest.MonkeyPatch) -> Pam:
    """`pam perceive ... --model fake`; fails the test where an error comes out as a traceback."""
    monkeypatch.setattr(console.out, "_width", 200)

    def call(*arguments: object, model: str = "fake") -> Result:
        result = CliRunner().invoke(app, ["perceive", *map(str, arguments), "--model", model])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise AssertionError(f"a traceback instead of a sentence: {result.exception!r}") from result.exception
        return result

    return call


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, list[Shape]]:
    picture, known = shapes(120, 90, 4)
    return write_picture(tmp_path / "scene.png", picture), known


def regions_of(out: Path) -> list[Region]:
    (perception,) = read_results(out)
    assert perception.error is None
    return list(perception.regions)


def at(shape: Shape, label: str = "") -> str:
    return f"{shape.centre[0]},{shape.centre[1]}{label}"


def corners(shape: Shape) -> str:
    return ",".join(map(str, shape.box))


# What is asked for


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


# What is told to those who ask for what cannot be


NO_POINT = r"wanted X,Y or X,Y,0 in pixels"
MISUSES: dict[str, tuple[list[str], str]] = {
    "point of words": (["{scene}", "--point", "a,b"], NO_POINT),
    "point of one number": (["{scene}", "--point", "5"], NO_POINT),
    "point of four numbers": (["{scene}", "--point", "1,2,1,1"], NO_POINT),
    "point empty": (["{scene}", "--point", ""], NO_POINT),
    "point with spaces for commas": (["{scene}", "--point", "1 2"], NO_POINT),
    "point NaN": (["{scene}", "--point", "nan,2"], "wanted finite numbers"),
    "point infinite": (["{scene}", "--point", "1e999,2"], "wanted finite numbers"),
    "label 2": (["{scene}", "--point", "1,2,2"], r"wanted .*\b0\b"),
    "label between": (["{scene}", "--point", "1,2,0.5"], r"wanted .*\b0\b"),
    "label NaN": (["{scene}", "--point", "1,2,nan"], r"wanted .*\b0\b"),
    "label infinite": (["{scene}", "--point", "1,2,inf"], r"wanted .*\b0\b"),
    "only background": (["{scene}", "--point", "1,2,0"], "wanted at least one foreground point"),
    "box of three numbers": (
        ["{scene}", "--box", "1,2,3"],
        r"wanted X1,Y1,X2,Y2 in pixels, e\.g\. --box (\d+,){3}\d+",
    ),
    "box of words": (["{scene}", "--box", "a,b,c,d"], "wanted X1,Y1,X2,Y2"),
    "box inverted": (["{scene}", "--box", "9,9,1,1"], "wanted x1 < x2"),
    "mask missing": (["{scene}", "--mask", "{tmp}/none.png"], r"--mask .*none\.png: no such file"),
    "mask no picture": (["{scene}", "--mask", "{tmp}/bad.jsonl"], r"--mask .*bad\.jsonl: not a picture"),
    "mask empty": (["{scene}", "--mask", "{tmp}/black.png"], "Got an empty mask"),
    "everything and a point": (["{scene}", "--everything", "--point", "1,1"], "--everything together with prompts"),
    "everything and a file": (
        ["{scene}", "--everything", "--prompts", "{tmp}/good.jsonl"],
        "--prompts together with",
    ),
    "file and a point": (["{scene}", "--point", "1,1", "--prompts", "{tmp}/good.jsonl"], "--prompts together with"),
    "points with two boxes": (["{scene}", "--point", "1,1", "--box", "0,0,9,9", "--box", "0,0,8,8"], "at most one"),
    "file missing": (["--prompts", "{tmp}/none.jsonl"], r"none\.jsonl: cannot be read"),
    "file with a bad line": (["--prompts", "{tmp}/bad.jsonl"], r"bad\.jsonl, line 2: "),
    "file with nothing in it": (["--prompts", "{tmp}/empty.jsonl"], "wanted"),
    "no picture": ([], "Got no picture; wanted at least one"),
    "empty folder": (["{tmp}/empty"], "Got no picture; wanted at least one"),
    "no picture but a point": (["--point", "1,1"], "Got no picture"),
    "task": (["{scene}", "--task", "poem"], "fake cannot do the task 'poem'; it can do label"),
    "language": (["{scene}", "--lang", "fr"], "no task that it can do in fr"),
    "one of two languages": (["{scene}", "--lang", "en,fr"], "no task that it can do in en, fr"),
    "task not in that language": (
        ["{scene}", "--task", "explanation", "--lang", "zh"],
        "cannot answer 'explanation' in zh",
    ),
    "no language": (["{scene}", "--lang", ""], "(?i)language"),
    "only a comma for languages": (["{scene}", "--lang", ","], "(?i)language"),
    "exporter": (
        ["{scene}", "--save", "{tmp}/saved", "--export", "vhs"],
        "No exporter is called 'vhs'; there is .*coco",
    ),
    "proposer": (["{scene}", "--proposer", "dice"], "No proposer is called 'dice'; there is grid"),
    "post-processor": (["{scene}", "--postprocess", "dice"], "No post-processor is called 'dice'; there is .*shout"),
    "device": (["{scene}", "--device", "toaster"], "Got the device 'toaster'; this machine has"),
    "device with a bad index": (["{scene}", "--device", "cpu:x"], "Got the device 'cpu:x'"),
    "device that is not there": (["{scene}", "--device", "cuda:999"], "Got the device 'cuda:999'"),
}


@pytest.mark.parametrize(("arguments", "told"), MISUSES.values(), ids=MISUSES)
def test_misuse_ends_with_2_and_a_sentence(
    pam: Pam, scene: tuple[Path, list[Shape]], fake: FakePlugin, tmp_path: Path, arguments: list[str], told: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "good.jsonl").write_text('{"points": [[1, 1]]}\n')
    (tmp_path / "bad.jsonl").write_text('{"image": "scene.png", "points": [[1, 1]]}\n{"image"\n')
    write_picture(tmp_path / "black.png", np.zeros((90, 120, 3), np.uint8))
    result = pam(*(argument.format(scene=scene[0], tmp=tmp_path) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert re.search(told, result.stderr), result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert fake.model.describes == 0


def test_an_unknown_model(pam: Pam, scene: tuple[Path, list[Shape]]) -> None:
    result = pam(scene[0], model="gpt-9")
    assert result.exit_code == 2
    assert re.search("No model is called 'gpt-9'; there is .*fake", result.stderr)


@pytest.mark.parametrize("option", ["--out", "--save"])
def test_a_place_that_cannot_be_written(
    pam: Pam, scene: tuple[Path, list[Shape]], tmp_path: Path, option: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    for place in (tmp_path / "file" / "below", tmp_path / "file" if option == "--save" else tmp_path):
        result = pam(scene[0], option, place)
        assert result.exit_code == 1
        assert str(place) in result.stderr
        assert f"choose another {option}" in result.stderr
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_foreign_results_file_is_refused(pam: Pam, scene: tuple[Path, list[Shape]], tmp_path: Path) -> None:
    notes = tmp_path / "notes.jsonl"
    notes.write_text('{"mine": 1}\n')
    result = pam(scene[0], "--out", notes)
    assert result.exit_code == 1
    assert "notes.jsonl, line 1, is not a result" in result.stderr
    assert notes.read_text() == '{"mine": 1}\n'


# How a run ends


def test_some_failed_and_are_tried_again(pam: Pam, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "in", 3)
    good = paths[1].read_bytes()
    paths[1].write_bytes(good[:60])
    out = tmp_path / "out.jsonl"
    result = pam(tmp_path / "in", "--out", out)
    assert result.exit_code == 1
    assert re.search(rf"failed {re.escape(str(paths[1]))}: damaged or cut short", result.stderr)
    assert "2 pictures" in result.stderr
    assert "1 failed" in result.stderr
    paths[1].write_bytes(good)
    result = pam(tmp_path / "in", "--out", out)
    assert result.exit_code == 0
    assert "2 taken over from an earlier run" in result.stderr
    done = [p.image for p in read_results(out) if p.error is None]
    assert sorted(done) == [str(path) for path in paths]


def test_a_prompt_outside_one_of_several_pictures(pam: Pam, scene: tuple[Path, list[Shape]], tmp_path: Path) -> None:
    small = write_pictures(tmp_path / "in", 1)[0]
    result = pam(scene[0], small, "--point", "100,80", "--out", tmp_path / "out.jsonl")
    assert result.exit_code == 1
    assert "Got the point (100, 80) outside the picture" in result.stderr
    assert small.name in result.stderr, "which of the pictures it was"
    assert [p.error is None for p in read_results(tmp_path / "out.jsonl")] == [True, False]


def interrupt_at_the_third(fake: FakePlugin) -> None:
    embed = fake.model.embed

    def at_the_third(picture: Picture) -> Any:
        if fake.model.embeds == 2:
            raise KeyboardInterrupt
        return embed(picture)

    fake.model.embed = at_the_third  # type: ignore[method-assign]


def test_an_interrupted_run_keeps_what_is_finished(pam: Pam, fake: FakePlugin, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 5)
    interrupt_at_the_third(fake)
    out, save = tmp_path / "out.jsonl", tmp_path / "saved"
    result = pam(tmp_path / "in", "--point", "1,1", "--out", out, "--save", save, "--export", "coco")
    assert result.exit_code == 130
    assert "stopped: 2 of 5 pictures are finished" in result.stderr
    assert str(out) in result.stderr
    assert len(list(read_results(out))) == 2
    assert len(json.loads((save / "coco.json").read_text())["images"]) == 2


class FullDisk:
    """An exporter to a disk that is full: when it writes, or only when it closes."""

    name = "full"
    description = "fails"

    def __init__(self, when: str) -> None:
        self.when = when

    @hookimpl
    def pam_exporters(self) -> list[FullDisk]:
        return [self]

    def open(self, folder: Path) -> FullDisk:
        return self

    def write(self, perception: Perception, picture: Picture | None) -> None:
        self._fail("write")

    def close(self) -> None:
        self._fail("close")

    def _fail(self, now: str) -> None:
        if self.when == now:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("when", ["write", "close"])
def test_a_full_disk_while_saving(pam: Pam, tmp_path: Path, when: str) -> None:
    write_pictures(tmp_path / "in", 2)
    out = tmp_path / "out.jsonl"
    with get_plugins().registered(FullDisk(when), "full disk"):
        result = pam(tmp_path / "in", "--out", out, "--save", tmp_path / "saved", "--export", "full")
    assert result.exit_code == 1
    assert os.strerror(errno.ENOSPC) in result.stderr
    assert len(list(read_results(out))) == (1 if when == "write" else 2)


# What is printed


def answer(fake: FakePlugin, text: str) -> None:
    describe = fake.model.describe

    def with_text(*arguments: Any) -> list[Region]:
        return [region.with_texts({"label": {"en": text}, "brief": {"en": text}}) for region in describe(*arguments)]

    fake.model.describe = with_text  # type: ignore[method-assign]


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


# Real processes


def command(python: Sequence[str], *arguments: object) -> list[str]:
    return [*python, "-m", "pam_plugins", "perceive", *map(str, arguments), "--model", "fake"]


# A process started in the background of a shell ignores SIGINT unless it says otherwise.
INTERRUPTIBLE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from pam_plugins.cli import main; main()"
)


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT")
def test_ctrl_c_in_the_middle_and_on_again(python: list[str], environment: dict[str, str], tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "in", 60)
    out = tmp_path / "out.jsonl"
    again = command(
        python, tmp_path / "in", "--point", "1,1", "--out", out, "--save", tmp_path / "s", "--export", "html"
    )
    process = subprocess.Popen(
        [*python, "-c", INTERRUPTIBLE, *again[len(python) + 2 :]],
        env={**environment, "FAKE_SECONDS": "0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    deadline = time.monotonic() + 60
    while not out.exists() or out.read_bytes().count(b"\n") < 5:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    kept = len(list(read_results(out)))
    told = re.search(r"stopped: (\d+) of 60 pictures are finished", errors)
    assert told, errors
    assert 5 <= kept < 60
    assert int(told[1]) in {kept, kept - 1}

    done = subprocess.run(
        again, env=environment, capture_output=True, text=True, encoding="utf-8", check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert f"{kept} taken over from an earlier run" in done.stderr
    assert Counter(p.image for p in read_results(out)) == {str(path): 1 for path in paths}
    page = (tmp_path / "s" / "index.html").read_text(encoding="utf-8")
    assert all(path.name in page for path in paths)


@pytest.mark.e2e
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_results_go_to_stdout_and_the_rest_to_stderr(
    python: list[str], environment: dict[str, str], tmp_path: Path, encoding: str
) -> None:
    """Through pipes, with names and answers in every alphabet, where the terminal may only do ASCII."""
    path = write_picture(tmp_path / "a.png", shapes(100, 80, 2)[0]).rename(tmp_path / "猫.png")
    done = subprocess.run(
        command(python, path, tmp_path / "none.png", "--point", "1,1", "--lang", "en,zh"),
        env={**environment, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"A white thing." in done.stdout
    assert b"no such file" in done.stderr
    assert b"\x1b" not in done.stdout + done.stderr


@pytest.mark.e2e
@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
def test_pictures_whose_names_are_not_utf8(python: list[str], environment: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "in"
    good = write_picture(folder / "a.png", shapes(40, 30, 2)[0]).rename(folder / os.fsdecode(b"caf\xe9.png"))
    bad = folder / os.fsdecode(b"\xff\xfe.png")
    bad.write_bytes(b"no picture")
    out = tmp_path / "out.jsonl"
    done = subprocess.run(
        command(python, folder, "--point", "1,1", "--out", out),
        env=environment,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert b"Traceback" not in done.stderr
    assert [(p.image, p.error is None) for p in read_results(out)] == [(str(good), True), (str(bad), False)]
