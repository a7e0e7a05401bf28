"""Starting is cheap and quiet: nothing heavy is imported, and nothing asks the network."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.pam_plugins.plugins.fakes import ROOT, environment

HEAVY = ("torch", "transformers", "cv2", "supervision", "onnxruntime", "rapidocr", "pyarrow", "ray", "pandas")
SPY = """
import json, runpy, sys

network = []
sys.addaudithook(lambda event, _: network.append(event) if event.startswith(("socket.", "urllib.")) else None)
sys.argv = ["pam", *{arguments!r}]
try:
    {statement}
except SystemExit as ended:
    assert (ended.code or 0) == {code}, ended.code
sys.stdout.flush()
heavy = sorted(set(sys.modules) & set({heavy!r}))
print("\\n" + json.dumps({{"heavy": heavy, "network": network, "loaded": sorted(sys.modules)}}))
"""
IMPORT = "import pam_plugins"
TINY = str(ROOT / "tests" / "parity")
LOAD = f"import pam_core.pam.hub, pam_core.pam.checkpoint as pam; pam.load_pretrained({TINY!r})"
RUN = "runpy.run_module('pam_plugins', run_name='__main__', alter_sys=True)"


def spy(statement: str, *arguments: str, code: int = 0) -> dict:
    """What a fresh interpreter has imported, and asked of the network, after running `statement`."""
    script = SPY.format(statement=statement, arguments=arguments, heavy=HEAVY, code=code)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(PAM_PLUGINS=""),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_spy_sees_what_it_is_there_to_see() -> None:
    seen = spy("import cv2, socket; socket.getaddrinfo('localhost', 1)")
    assert seen["heavy"] == ["cv2"]
    assert "socket.getaddrinfo" in seen["network"]


def test_importing_the_package_imports_nothing_heavy() -> None:
    seen = spy(IMPORT)
    assert "pam_plugins.api" in seen["loaded"]
    assert seen["heavy"] == []


def test_importing_the_package_loads_no_plugin() -> None:
    assert not [
        name for name in spy(IMPORT)["loaded"] if name.startswith(("pam_plugins.builtin", "pam_plugins.models"))
    ]


@pytest.mark.parametrize(
    ("statement", "arguments"),
    [
        (IMPORT, ()),
        (RUN, ("--help",)),
        (RUN, ("--version",)),
        (RUN, ("models",)),
        (RUN, ("plugins",)),
        (LOAD, ()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_network_is_left_alone(statement: str, arguments: tuple[str, ...]) -> None:
    assert spy(statement, *arguments)["network"] == []


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("perceive", "--help"), ("enrich", "--help")])
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert spy(RUN, *arguments)["heavy"] == []


def test_listing_models_imports_no_torch() -> None:
    assert "torch" not in spy(RUN, "models")["heavy"]


def test_a_misuse_is_told_before_torch_is_imported() -> None:
    assert "torch" not in spy(RUN, "perceive", "none.jpg", "--point", "a,b", code=2)["heavy"]
