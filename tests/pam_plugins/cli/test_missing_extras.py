"""Where the packages of an extra are missing, each command that needs them ends in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.factories import write_pictures
from tests.paths import PARITY, ROOT

WITHOUT = "import sys; sys.modules[{hidden!r}] = None; sys.argv[0] = 'pam'; from pam_plugins.cli import main; main()"
CASES = {
    "parquet sink": ("pyarrow", ["enrich", "folder:in", "parquet:out", "--model", "lite"], "ray"),
    "parquet source": ("pyarrow", ["enrich", "parquet:in", "jsonl:out.jsonl", "--model", "lite"], "ray"),
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
