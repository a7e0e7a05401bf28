"""The plugin `pam`: which checkpoints it lists, and perceiving with one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pam_core.engine.cache import shared_cache
from pam_core.errors import MissingExtraError
from pam_core.types import Task
from pam_core.video import FrameResult, TrackEvent
from pam_plugins import Prompt, hookimpl, perceive, plugins
from pam_plugins.datasets.jsonl import read_results
from pam_plugins.models.pam import info
from pam_plugins.options import Options
from pam_plugins.plugins import get_plugins
from pam_plugins.video_io.record import read_record
from tests.pam_plugins.cli.conftest import run_main
from tests.paths import ROOT
from tests.tiny_pam import FOLDER, picture

PHOTO = FOLDER / "inputs" / "image.png"


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tiny checkpoint as the user's own; nothing of it stays in any cache."""
    monkeypatch.setenv(info.VARIABLE, str(FOLDER))
    yield
    shared_cache.clear()


def pam(*arguments: object) -> tuple[int, str]:
    ended = run_main(*arguments)
    return ended.exit_code, ended.stdout + ended.stderr


def test_without_a_checkpoint_lite_is_the_best_and_pam_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(info.VARIABLE, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    infos = plugins.model_infos()
    assert plugins.resolve_model().name == "lite"
    assert infos["pam-3b"].missing == "PAM-3B: not on this machine; fetch it with: pam download PAM-3B"
    with pytest.raises(plugins.NotFoundError, match=r"pam download PAM-1\.5B"):
        plugins.load_model("pam-1.5b")


def test_a_checkpoint_that_is_named_is_the_best(configured: None) -> None:
    chosen = plugins.resolve_model()
    assert (chosen.name, chosen.missing) == ("pam", None)
    assert set(chosen.tasks) == {"label", "explanation", "brief", "detailed"}


def test_a_name_that_leads_nowhere_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(info.VARIABLE, str(tmp_path))
    assert "holds no config.json" in str(plugins.model_infos()["pam"].missing)
    assert plugins.resolve_model().name == "lite"


def test_packages_that_are_lacking_are_named(configured: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info, "find_spec", lambda name: None if name == "sam2" else object())
    assert plugins.model_infos()["pam"].missing == "pip install 'pam-plugins[pam]' (lacking: sam2)"


@pytest.mark.parametrize("package", ["huggingface_hub", "yaml"])
def test_without_the_extra_models_are_listed_and_loading_one_is_one_sentence(package: str, tmp_path: Path) -> None:
    """`pam models` needs nothing of the extra, and a PAM that is chosen says how to get it."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        hide = f"import sys; sys.modules[{package!r}] = None; sys.argv[0] = 'pam'"
        paths = os.pathsep.join([str(ROOT), str(ROOT / "core")])
        return subprocess.run(
            [sys.executable, "-c", f"{hide}; from pam_plugins.cli import main; main()", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths, "PAM_PLUGINS": "", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    listed = run("models")
    assert listed.returncode == 0 and listed.stderr == "", listed.stderr
    assert "pam-3b" in listed.stdout and "lite" in listed.stdout
    refused = run("perceive", str(PHOTO), "--point", "70,58", "--model", "pam-3b")
    assert refused.returncode == 1
    assert refused.stderr.startswith("pam: ") and refused.stderr.count("\n") == 1
    assert "pip install 'pam-plugins[pam]'" in refused.stderr


def test_a_package_that_cannot_be_imported_is_one_sentence(configured: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is installed and broken: only loading the model tells."""
    monkeypatch.setitem(sys.modules, "pam_plugins.models.pam.loading", None)
    with pytest.raises(MissingExtraError, match=r"The model pam needs packages .*pip install 'pam-plugins\[pam\]'"):
        plugins.load_model("pam")


def test_the_command_perceives_with_it_and_resumes(configured: None, tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    command = ["perceive", PHOTO, "--point", "70,58", "--lang", "en,zh", "--task", "label", "--task", "brief"]
    command += ["--out", out, "--max-tokens", "8", "--max-tokens", "label=3"]
    code, said = pam(*command)
    assert code == 0, said
    assert f"the PAM checkpoint that {info.VARIABLE} names" in said
    (perception,) = read_results(out)
    (region,) = perception.regions
    assert region.model.name == "pam" and region.model.revision == plugins.model_infos()["pam"].revision
    assert {code for by in region.texts.values() for code in by} == {"en", "zh"}
    assert "1 taken over" in pam(*command)[1]
    assert "taken over" not in pam(*command, "--max-tokens", "brief=9")[1]
    assert len(list(read_results(out))) == 2


def test_the_video_command_follows_with_it_and_captions_in_both_languages(configured: None, tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for index in range(4):
        shutil.copy(FOLDER / "inputs" / f"{index:05}.jpg", frames)
    record = tmp_path / "seen.jsonl"
    code, said = pam("video", frames, "--box", "40,34,100,82@0", "--lang", "en,zh", "--model", "pam", "--out", record)
    assert code == 0, said
    seen = list(read_record(record))
    followed = [each for each in seen if isinstance(each, FrameResult)]
    assert [each.index for each in followed] == [0, 1, 2, 3]
    assert all(region.track_id == 1 and region.model.name == "pam" for each in followed for region in each.regions)
    (event,) = [each for each in seen if isinstance(each, TrackEvent)]
    assert (event.first, event.last, set(event.texts)) == (0, 3, {"en", "zh"})


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("--max-tokens", "many", "wanted a number"),
        ("--max-tokens", "label=0", "label 0; wanted at least 1"),
        ("--top-p", "2", "top_p 2"),
        ("--temperature", "-1", "temperature -1"),
    ],
)
def test_settings_that_make_no_sense_are_told(configured: None, option: str, value: str, wanted: str) -> None:
    code, said = pam("perceive", PHOTO, "--point", "70,58", option, value)
    assert code == 2 and wanted in said


def test_questions_of_other_plugins_are_put_to_it(configured: None) -> None:
    class Materials:
        @hookimpl
        def pam_tasks(self) -> list[Task]:
            return [Task("material", "What it is made of", {"en": "What is this subject made of?"})]

    with get_plugins().registered(Materials(), "materials"):
        found = perceive(picture(), [Prompt.at(70, 58)], model="pam", options=Options(tasks=("material",)))
        assert found.regions[0].text("material") is not None


def test_it_can_be_compiled(configured: None) -> None:
    """What compiling gives is not measured here; that it is asked for and that answers come is."""
    model = plugins.load_model("pam", compile=True)
    assert model.model.vision.sam.image_encoder._compiled_call_impl is not None  # type: ignore[attr-defined]
    assert plugins.load_model("pam") is not model


class TestParityCommand:
    def test_says_how_far_apart(self) -> None:
        code, said = pam("parity", FOLDER, "--cases", "image_point")
        assert code == 0, said
        assert "generated ids equal" in said and "step_logits" in said and "1 of 1 cases" in said

    def test_a_case_that_cannot_be_run_fails_by_name(self, tmp_path: Path) -> None:
        folder = tmp_path / "cases"
        shutil.copytree(FOLDER, folder)
        cases = json.loads((folder / "cases.json").read_text())
        cases["cases"]["sound"] = {"types": ["sound"]}
        (folder / "cases.json").write_text(json.dumps(cases))
        code, said = pam("parity", folder, "--cases", "unit_stability,sound", "--json")
        report = json.loads(said)
        assert code == 1 and not report["ok"]
        assert [case["ok"] for case in report["cases"]] == [True, False]
        assert "cases of sound cannot be run yet" in report["cases"][1]["error"]

    def test_a_folder_without_cases_is_told(self, tmp_path: Path) -> None:
        code, said = pam("parity", tmp_path)
        assert code == 1 and "holds no cases.json" in said
