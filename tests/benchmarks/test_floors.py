"""That the folders of the benchmarks import downwards only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import benchmarks
import rsam

ROOT = Path(benchmarks.__file__).parent
#: Folders from the ground up: each may import those before it only.
FLOORS = {
    "benchmarks": ("machine", "data", "workloads", "run", "methods", "report", "runs", "studies", "cli", "__main__"),
    "benchmarks.studies": (
        "study",
        "comparison",
        "images",
        "quick",
        "manifold_tasks",
        "ablations",
        "estimators",
        "overhead",
        "population",
    ),
}


def _imports(file: Path, package: str) -> set[str]:
    """Return the parts of a package that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{package}."):
            names = str(node.module).removeprefix(package).strip(".").split(".")
            found |= {names[0]} if names[0] else {alias.name for alias in node.names}
    return found


def _folder(package: str) -> Path:
    return ROOT.parent / package.replace(".", "/")


@pytest.mark.parametrize(("package", "floor"), [(p, floor) for p, floors in FLOORS.items() for floor in floors])
def test_that_imports_run_down_only(package: str, floor: str) -> None:
    below = {*FLOORS[package][: FLOORS[package].index(floor)], floor}
    for file in list((_folder(package) / floor).rglob("*.py")) or [_folder(package) / f"{floor}.py"]:
        assert _imports(file, package) <= below, file


@pytest.mark.parametrize("package", FLOORS)
def test_that_every_floor_is_listed(package: str) -> None:
    folders = _folder(package).iterdir()
    parts = {path.stem for path in folders if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__"} == set(FLOORS[package])


def test_that_nothing_in_rsam_imports_the_benchmarks() -> None:
    assert not [file for file in Path(rsam.__file__).parent.rglob("*.py") if _imports(file, "benchmarks")]
