"""Skip documents of frameworks that are not installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
MODULES, PAGES = ROOT / "rsam" / "integrations", ROOT / "docs" / "guide" / "integrations"
# frameworks, by the name of a module or page; those that are not here need the one of their name
NEEDS = {
    "others": ["skorch", "peft"],
    "README": [],
    "__init__": [],
    "frameworks": [],
    "halves": [],
    "lightning_passes": [],
}

# for make browser and make wheel-test
collect_ignore = ["tests/benchmarks/test_browser.py", "tests/site", "tests/wheel"]


def _missing(path: Path) -> list[str]:
    """The frameworks that a module or page about one needs, and that are not there."""
    if path.parent not in (MODULES, PAGES):
        return []
    return [name for name in NEEDS.get(path.stem, [path.stem]) if find_spec(name) is None]


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    # a module without its framework cannot even be imported for its doctests
    return True if collection_path.parent == MODULES and _missing(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        missing = _missing(item.path)
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"{missing[0]} is not installed"))
