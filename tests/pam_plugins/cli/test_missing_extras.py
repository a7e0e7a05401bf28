"""Where the packages of an extra are missing, each command that needs them ends in one sentence."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.factories import write_pictures
from tests.pam_plugins.cli.conftest import run_main
from tests.paths import PARITY, ROOT

WITHOUT = "import sys; sys.modules[{hidden!r}] = None; sys.argv[0] = 'pam'; from pam_plugins.cli import main; main()"
CASES = {
    "parquet sink": ("pyarrow", ["enrich", "folder:in", "parquet:out", "--model", "lite"], "ray"),
    "parquet source": ("pyarrow", ["enrich", "parquet:in", "jsonl:out.jsonl", "--model", "lite"], "ray"),
    "fiftyone source": (
        "fiftyone",
        ["enrich", "fiftyone:in/boxes", "jsonl:out.jsonl", "--model", "lite"],
        "fiftyone",
    ),
    "fiftyone sink": ("fiftyone", ["enrich", "folder:in", "fiftyone:out/regions", "--model", "lite"], "fiftyone"),
    "ray": ("ray", ["enrich", "folder:in", "jsonl:out.jsonl", "--model", "lite", "--actors", "2"], "ray"),
    "parity": ("sam2", ["parity", str(PARITY)], "pam"),
    "download": ("huggingface_hub", ["download", "PAM-3B"], "pam"),
    "convert": ("sam2", ["convert", str(PARITY), "--out", "out"], "pam"),
    "video": ("av", ["video", "clip.mp4", "--point", "1,1", "--model", "lite"], "video"),
}


@pytest.mark.parametrize(("hidden", "arguments", "extra"), CASES.values(), ids=CASES)
def test_a_missing_package_is_one_sentence(tmp_path: Path, hidden: str, arguments: list[str], extra: str) -> None:
    write_pictures(tmp_path / "in", 1)
    (tmp_path / "clip.mp4").write_bytes(b"a video")
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(hidden=hidden), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "core")]), "PAM_PLUGINS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.startswith("pam: ") and ended.stderr.count("\n") == 1
    assert f"pip install 'pam-plugins[{extra}]'" in ended.stderr


def test_the_doctor_finds_nothing_wrong_without_any_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    extras = {"av", "fiftyone", "huggingface-hub", "pyarrow", "rapidocr", "ray", "sam2", "transformers"}

    def version(name: str) -> str:
        if name in extras:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("importlib.metadata.version", version)
    ended = run_main("doctor")
    assert ended.exit_code == 0 and "wrong" not in ended.stdout, ended.stdout
    assert "model lite: answered" in ended.stdout
