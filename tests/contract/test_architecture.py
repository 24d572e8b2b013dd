"""Imports point one way: schemas <- collector, streams, warehouse, reports <- headrace; the core knows nobody."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALLOWED = {
    "schemas": {"schemas"},
    "collector": {"collector", "schemas"},
    "streams": {"streams", "schemas"},
    "warehouse": {"warehouse", "schemas"},
    "reports": {"reports", "schemas"},
    "headrace": {"headrace", "collector", "streams", "warehouse", "reports", "schemas"},
}
OURS = {*ALLOWED, "tests", "bench"}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imports_of(path: Path) -> Iterator[str]:
    """The full names of the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import, which hides where it points"
            yield node.module or ""


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_stands_before_it(package: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imports_of(path)
        if (top := name.partition(".")[0]) in OURS and top not in ALLOWED[package]
    }
    assert wrong == set()


def test_the_core_imports_the_standard_library_schemas_and_itself() -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("streams/core")
        for name in imports_of(path)
        if not (name.partition(".")[0] in {*sys.stdlib_module_names, "schemas"} or name.startswith("streams.core"))
    }
    assert wrong == set()


def test_no_clock_and_no_chance_is_asked_in_the_core() -> None:
    asked = {"time", "random", "secrets", "uuid", "os", "socket"}
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("streams/core")
        for name in imports_of(path)
        if name.partition(".")[0] in asked
    }
    assert wrong == set()
    for path in modules("streams/core"):
        assert ".now(" not in path.read_text(), f"{path} asks the clock"


def test_every_package_of_the_project_is_one_of_these() -> None:
    found = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert found - {"tests", "bench"} == set(ALLOWED)
