"""No import of one of our modules leads back to it, imports for type checking and inside functions included.

Import Linter (pyproject.toml) checks the layers; of circles it knows those between packages, not between modules.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import grimp
import pytest

PACKAGES = ("pam_core", "pam_plugins", "fiftyone_plugin")

Imports = Mapping[str, Iterable[str]]
"""What each module imports."""


def circles(imports: Imports) -> list[list[str]]:
    """A shortest circle of each group of modules that all lead to one another, its first module also at its end."""
    found = []
    for group in groups(imports):
        inside = {name: sorted(group.intersection(imports[name])) for name in group}
        found.append(min((shortest(name, inside) for name in sorted(group)), key=len))
    return found


def groups(imports: Imports) -> list[set[str]]:
    """The strongly connected components in which there is an import, in order of their first names."""
    reachable = {name: reached(name, imports) for name in imports}
    found: list[set[str]] = []
    for name in sorted(imports):
        if name in reachable[name] and not any(name in group for group in found):
            found.append({other for other in reachable[name] if name in reachable[other]})
    return found


def reached(start: str, imports: Imports) -> set[str]:
    """Every module that is imported by way of `start`; itself only by a circle."""
    seen: set[str] = set()
    ahead = list(imports[start])
    while ahead:
        name = ahead.pop()
        if name not in seen:
            seen.add(name)
            ahead.extend(imports[name])
    return seen


def shortest(start: str, imports: Imports) -> list[str]:
    """A shortest way from a module back to itself; there has to be one."""
    ways = [[start]]
    seen: set[str] = set()
    for way in ways:
        for name in imports[way[-1]]:
            if name == start:
                return [*way, start]
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])
    raise ValueError(f"no circle leads through {start}")


def test_no_import_leads_back() -> None:
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert len(imports) > 50
    told = []
    for group, circle in zip(groups(imports), circles(imports), strict=True):
        lines = [f"{len(group)} modules lead to one another: {', '.join(sorted(group))}. The shortest circle:"]
        for importer, imported in itertools.pairwise(circle):
            number = graph.get_import_details(importer=importer, imported=imported)[0]["line_number"]
            lines.append(f"    {importer}, line {number}, imports {imported}")
        told.append("\n".join(lines))
    assert not told, "\n".join(["imports in circles", *told])


@pytest.mark.parametrize(
    ("imports", "expected"),
    [
        ({}, []),
        ({"a": "bc", "b": "c", "c": ""}, []),
        ({"a": "b", "b": "a"}, ["aba"]),
        ({"a": "a"}, ["aa"]),
        ({"a": "b", "b": "c", "c": "ad", "d": "b"}, ["abca"]),
        ({"a": "b", "b": "cd", "c": "a", "d": "b"}, ["bdb"]),
        ({"a": "b", "b": "a", "c": "da", "d": "c", "e": "ac"}, ["aba", "cdc"]),
    ],
)
def test_circles_are_found(imports: dict[str, str], expected: list[str]) -> None:
    assert ["".join(circle) for circle in circles(imports)] == expected
