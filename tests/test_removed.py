"""That names which are gone say what replaces them."""

from __future__ import annotations

import importlib
import re
from functools import reduce
from pathlib import Path

import pytest
import torch

import rsam
from rsam.removed import REMOVED

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


@pytest.mark.parametrize("name", REMOVED)
def test_that_a_removed_name_says_what_replaces_it(name: str) -> None:
    module, _, last = name.rpartition(".")
    message = re.escape(f"{name} was removed in rsam 0.2; use {REMOVED[name]}")
    with pytest.raises(AttributeError, match=message):
        getattr(importlib.import_module(module), last)
    with pytest.raises(ImportError, match=message):
        exec(f"from {module} import {last}")
    with pytest.raises(ModuleNotFoundError, match=message):
        importlib.import_module(name)
    assert not hasattr(importlib.import_module(module), last)


@pytest.mark.parametrize("replacement", sorted(set(REMOVED.values())))
def test_that_a_replacement_exists(replacement: str) -> None:
    assert reduce(getattr, replacement.replace("(points)", "").split(".")[1:], rsam)


def test_that_every_removed_name_of_the_changelog_is_known() -> None:
    removed = CHANGELOG.read_text().partition("### Removed")[2].partition("\n## ")[0]
    names = set()
    for row in re.findall(r"^\| (`.*?) \|", removed, re.M):
        first, *others = (name.partition("(")[0] for name in re.findall(r"`(.*?)`", row))
        names |= {first, *(f"{first.rpartition('.')[0]}.{other}" for other in others)}
    names = {name for name in names if name.startswith("rsam.")}
    assert len(names) > 5
    assert names <= REMOVED.keys()


@pytest.mark.parametrize("module", ["rsam", "rsam.evaluation", "rsam.geometry", "rsam.nn", "rsam.testing"])
def test_that_a_name_which_never_was_is_reported_as_ever(module: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'nonsense'"):
        importlib.import_module(module).nonsense  # noqa: B018


def test_that_a_pass_hook_of_before_is_refused() -> None:
    class Hook:
        def before_first_pass(self) -> None: ...

    optimizer = rsam.RSAM([torch.nn.Parameter(torch.ones(1))], torch.optim.SGD, lr=0.1)
    with pytest.raises(TypeError, match=r"Hook has no method before_pass; .* replace before_first_pass"):
        optimizer.register_pass_hook(Hook())  # type: ignore[arg-type]
