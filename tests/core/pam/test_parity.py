"""This installation computes what the reference computed. The tolerances are those of `pam parity`.

A process of its own can choose the kernels that the reference computed with; here they are the machine's own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pam_core.errors import CheckpointError
from pam_core.pam.parity import kernels
from pam_core.pam.parity.cases import run_cases
from pam_core.pam.parity.comparison import compare
from tests.tiny_pam import FOLDER

CASES = (
    "image_box",
    "image_point",
    "image_points",
    "image_mask",
    "image_batch3",
    "video8",
    "train_loss",
    "unit_stability",
    "image_box_bf16",
)
LONGER = ("video20", "stream_clip1", "stream_clip2")


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, marks=pytest.mark.e2e) for case in LONGER)])
def test_a_case_is_as_the_reference_computed_it(case: str) -> None:
    (report,) = run_cases(FOLDER, [case])
    assert report.differences
    assert [(d.name, d.relative) for d in report.differences if not d.ok] == []
    assert report.ids_equal is not False
    assert report.ok


@pytest.mark.parametrize("cases", [CASES, *(pytest.param([case], id=case, marks=pytest.mark.e2e) for case in LONGER)])
def test_with_the_recorded_kernels_every_case_passes_without_exceptions(cases: Sequence[str]) -> None:
    command = "from pam_plugins.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", command, "parity", str(FOLDER), "--cases", ",".join(cases), "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(ran.stdout)
    if not report["recorded_kernels"]:
        pytest.skip("this processor has no AVX2")
    off = {case["case"]: [name for name, t in case["tensors"].items() if not t["ok"]] for case in report["cases"]}
    assert off == {case: [] for case in cases}
    assert report["ok"] and ran.returncode == 0


@pytest.mark.parametrize(("same_kernels", "ok"), [(True, False), (False, True)])
def test_a_presence_near_0_is_measured_against_1_only_with_other_kernels(same_kernels: bool, ok: bool) -> None:
    got, recorded = ({"object_score_logits.0": torch.tensor([[value]])} for value in (0.011006, 0.011))
    assert compare("near", got, recorded, True, same_kernels).ok == ok


def test_kernels_are_chosen_only_before_torch_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    kernels.choose_recorded()
    assert os.environ == {}
    monkeypatch.delitem(sys.modules, "torch")
    kernels.choose_recorded()
    assert os.environ == {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "2"}


def test_kernels_that_the_user_chose_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}
    monkeypatch.setattr(os, "environ", dict(chosen))
    monkeypatch.delitem(sys.modules, "torch")
    kernels.choose_recorded()
    assert os.environ == chosen


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder with one case, to be spoiled."""
    folder = tmp_path / "cases"
    folder.mkdir()
    for file in FOLDER.iterdir():
        if file.name not in ("image_point.safetensors", "cases.json"):
            (folder / file.name).symlink_to(file)
    cases = json.loads((FOLDER / "cases.json").read_text())
    cases["cases"] = {"image_point": cases["cases"]["image_point"]}
    (folder / "cases.json").write_text(json.dumps(cases))
    return folder


def test_a_tensor_that_is_off_is_named(copied: Path) -> None:
    tensors = load_file(FOLDER / "image_point.safetensors")
    tensors["sem_tokens_out.0"] = tensors["sem_tokens_out.0"] * 1.001
    tensors["never_heard_of.0"] = torch.ones(1)
    save_file(tensors, copied / "image_point.safetensors")
    (report,) = run_cases(copied)
    assert [d.name for d in report.differences if not d.ok] == ["never_heard_of.0 (not computed)", "sem_tokens_out.0"]
    assert not report.ok


@pytest.mark.parametrize("name", ["generated_ids", "input_ids"])
def test_one_other_id_is_found(copied: Path, name: str) -> None:
    tensors = load_file(FOLDER / "image_point.safetensors")
    tensors[name][0, 3] += 1
    save_file(tensors, copied / "image_point.safetensors")
    (report,) = run_cases(copied)
    assert report.ids_equal is False and not report.ok


def test_another_answer_is_found(copied: Path) -> None:
    save_file(load_file(FOLDER / "image_point.safetensors"), copied / "image_point.safetensors")
    cases = json.loads((copied / "cases.json").read_text())
    cases["cases"]["image_point"]["text"] = ["something else"]
    (copied / "cases.json").write_text(json.dumps(cases))
    assert next(run_cases(copied)).ids_equal is False


def test_a_case_that_is_missing_is_told(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"image_point\.safetensors: no such file"):
        list(run_cases(copied))
    with pytest.raises(CheckpointError, match="has no case other"):
        list(run_cases(copied, ["other"]))
    with pytest.raises(CheckpointError, match=r"no cases\.json"):
        list(run_cases(tmp_path))
