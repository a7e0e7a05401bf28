"""Names that mislead: one that hides a module, one that two classes share."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections import defaultdict

import pytest

from tests.paths import ROOT

PACKAGES = ("pam_core", "pam_plugins")
FOLDERS = ("core/pam_core", "pam_plugins", "fiftyone_plugin")


@pytest.mark.parametrize("name", PACKAGES)
def test_no_name_of_a_package_hides_one_of_its_modules(name: str) -> None:
    """`import pam_plugins.perceive` once gave a function."""
    package = importlib.import_module(name)
    found = [
        package,
        *(importlib.import_module(m.name) for m in pkgutil.walk_packages(package.__path__, f"{name}.") if m.ispkg),
    ]
    for each in found:
        for module in pkgutil.iter_modules(each.__path__):
            value = getattr(each, module.name, None)
            assert value is None or getattr(value, "__name__", "") == f"{each.__name__}.{module.name}"


def test_no_two_public_classes_have_one_name() -> None:
    classes: dict[str, list[str]] = defaultdict(list)
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    classes[node.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in classes.items() if len(paths) > 1} == {}
