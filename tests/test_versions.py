"""That versions which are written in several files agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def only(pattern: str, file: str) -> str:
    """Return what the only match of a pattern in a file captures."""
    (found,) = re.findall(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    return found


def test_that_the_citation_is_of_this_version_and_licence() -> None:
    assert only(r"^version: (.+)$", "CITATION.cff") == PROJECT["version"]
    assert only(r"^license: (.+)$", "CITATION.cff") == PROJECT["license"]
