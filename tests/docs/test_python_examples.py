"""The examples of docs/python.md run, one after the other, as a reader would run them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from pam_plugins import release_model
from pam_plugins.datasets.jsonl import read_results
from tests.paths import PHOTOS, ROOT

DOCUMENT = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(EXAMPLES) >= 4
    shutil.copy(PHOTOS / "horse.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, example in enumerate(EXAMPLES, 1):
        exec(compile(example, f"docs/python.md, example {number}", "exec"), names)
    out = capsys.readouterr().out
    assert "horse" in out and "马" in out
    assert re.search(r"brief zh finished .*。", out)
    assert "missing.jpg: no such file" in out
    assert [bool(result.error) for result in read_results(tmp_path / "results.jsonl")] == [False, True]
    assert (tmp_path / "out" / "coco.json").is_file()
    release_model()
