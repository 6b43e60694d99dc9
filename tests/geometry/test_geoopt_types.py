"""That the types which mypy takes for geoopt's are those of geoopt's classes and methods."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import geoopt
import pytest

STUB = Path(__file__).parents[2] / "typings" / "geoopt" / "__init__.pyi"
CLASSES = [node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("declared", CLASSES, ids=lambda node: node.name)
def test_that_declared_classes_and_methods_are_there(declared: ast.ClassDef) -> None:
    cls = getattr(geoopt, declared.name)
    bases = [base.id for base in declared.bases if isinstance(base, ast.Name) and hasattr(geoopt, base.id)]
    assert all(issubclass(cls, getattr(geoopt, base)) for base in bases)
    for method in declared.body:
        if isinstance(method, ast.FunctionDef) and method.name != "__getattr__":
            names = [a.arg for a in (*method.args.args, *method.args.kwonlyargs)]
            actual = list(inspect.signature(getattr(cls, method.name)).parameters)
            assert [name for name in actual if name in names] == names, f"{declared.name}.{method.name}"
