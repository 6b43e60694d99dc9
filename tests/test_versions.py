"""That versions which are written in several files agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def only(pattern: str, file: str) -> str:
    """Return what the only match of a pattern in a file captures."""
    (found,) = re.findall(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    return found


def test_that_the_citation_is_of_this_version_and_licence() -> None:
    assert only(r"^version: (.+)$", "CITATION.cff") == PROJECT["version"]
    assert only(r"^license: (.+)$", "CITATION.cff") == PROJECT["license"]


@pytest.mark.parametrize("package", ["torch", "numpy"])
def test_that_the_oldest_torch_and_numpy_that_are_tested_are_those_declared(package) -> None:
    (oldest,) = (text.partition(">=")[2] for text in PROJECT["dependencies"] if text.startswith(f"{package}>="))
    tested = only(rf"'{package}==([\d.]+)'", "Makefile")
    assert tested.split(".")[:2] == oldest.split(".")


def test_that_python_is_the_one_declared_everywhere() -> None:
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert only(r"sys.version_info < \((3, \d+)\)", "Makefile") == oldest.replace(".", ", ")
    assert only(r'python: \["([\d.]+)"\]', ".github/workflows/tests.yml") == oldest
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert settings["mypy"]["python_version"] == oldest
    assert settings["ruff"]["target-version"] == "py" + oldest.replace(".", "")


def test_that_every_target_of_the_workflow_is_one_of_the_makefile_and_run_on_every_submission() -> None:
    targets = only(r"target: \[(.+)\]", ".github/workflows/tests.yml").split(", ")
    assert set(targets) <= set(only(r"^\.PHONY: (.+)$", "Makefile").split())
    run = re.findall(r"^make (\S+)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(targets) <= set(run)
