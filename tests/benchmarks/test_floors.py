"""That the folders of the benchmarks import downwards only, and no files in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
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
        "costs",
        "comparison",
        "images",
        "fair",
        "quick",
        "manifold_tasks",
        "ablations",
        "estimators",
        "overhead",
        "cheap",
        "population",
        "norms_and_skips",
        "constrained",
        "one_rho",
        "claims",
    ),
}


def _names(file: Path) -> Iterator[str]:
    """Yield the full names of modules and their members that a file imports, at any time."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _imports(file: Path, package: str) -> set[str]:
    """Return the parts of a package that a file imports."""
    return {n.removeprefix(f"{package}.").split(".")[0] for n in _names(file) if n.startswith(f"{package}.")}


def _module(file: Path) -> str:
    parts = file.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


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


def test_that_no_files_import_each_other_in_a_circle() -> None:
    files = {_module(file): file for file in ROOT.rglob("*.py")}
    graph = {
        module: {n if n in files else n.rpartition(".")[0] for n in _names(file)} & files.keys() - {module}
        for module, file in files.items()
    }
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


def test_that_nothing_in_rsam_imports_the_benchmarks() -> None:
    files = Path(rsam.__file__).parent.rglob("*.py")
    assert not [file for file in files if "benchmarks" in {name.split(".")[0] for name in _names(file)}]
