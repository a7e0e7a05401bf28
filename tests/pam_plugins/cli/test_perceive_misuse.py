"""`pam perceive`: what each misuse is told."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.factories import FakePlugin, Shape, write_picture
from tests.pam_plugins.cli.conftest import Pam

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
        "No kind of sink is called 'vhs'; there is .*coco",
    ),
    "exporter and no folder": (["{scene}", "--export", "coco"], "Got --export coco and no folder; wanted --save DIR"),
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
    assert result.exit_code == 2, result.stderr
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
        assert str(place) in result.stderr or f"{place.parent} cannot be written" in result.stderr
        assert "choose another" in result.stderr
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_foreign_results_file_is_refused(pam: Pam, scene: tuple[Path, list[Shape]], tmp_path: Path) -> None:
    notes = tmp_path / "notes.jsonl"
    notes.write_text('{"mine": 1}\n')
    result = pam(scene[0], "--out", notes)
    assert result.exit_code == 1
    assert "notes.jsonl, line 1, is not a result" in result.stderr
    assert notes.read_text() == '{"mine": 1}\n'
