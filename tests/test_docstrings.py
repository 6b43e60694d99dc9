"""That every public name is documented in full: arguments, results, errors, and an example that runs."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from types import FunctionType, ModuleType
from typing import Any

import pytest
from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import ERROR_MSGS, validate

import rsam

# numpydoc's checks of form, all of them; what a docstring must contain is checked below, since numpydoc knows neither
# which errors a function raises, nor whether an example runs, nor what a class says for its methods
CHECKS = ERROR_MSGS.keys() - {
    "GL08",  # a docstring
    "PR01",  # every argument
    "RT01",  # results
    "YD01",  # results of a generator
    "EX01",  # an example
    "ES01",  # more than a summary, where one line says all
    "SA01",  # See Also, where nothing is alike
}
# Owners whose members share arguments, results and errors, which they document once, as a list of definitions.
GLOSSARIES = {
    "rsam.geometry.base.Geometry": "thirty operations, each of points, tangents and covectors",
    "rsam.geometry.product.Product": "the same operations on lists",
    "rsam.geometry.blocks.Block": "steps from tensors to stacks and back",
    "rsam.testing.properties": "arguments are drawn by name, and every error is an AssertionError",
    "rsam.testing.steps": "arguments are drawn by name, and every error is an AssertionError",
}


def _public_modules() -> list[str]:
    """Return packages, the modules that they offer, and the integrations in the table of their package."""
    packages = ["rsam", *(m.name for m in pkgutil.walk_packages(rsam.__path__, "rsam.") if m.ispkg)]
    offered = [
        member.__name__
        for package in map(importlib.import_module, packages)
        for member in (getattr(package, name) for name in getattr(package, "__all__", ()))
        if isinstance(member, ModuleType)
    ]
    integrations = re.findall(r":mod:`(\S+)`", importlib.import_module("rsam.integrations").__doc__ or "")
    return list(dict.fromkeys(packages + offered + integrations))


@dataclass(frozen=True)
class Entry:
    """A public function or class with its module, or a public method or property with its class."""

    name: str
    value: Any
    owner: Any
    overrides: bool = False  # a method of a base class, whose contract it has, so that it need only say what differs

    @cached_property
    def doc(self) -> NumpyDocString:
        return NumpyDocString(inspect.getdoc(self.value))

    @cached_property
    def errors(self) -> dict[str, str]:
        errors: dict[str, str] = {}
        for code, error in validate(self.name)["errors"]:
            errors[code] = "; ".join(filter(None, (errors.get(code), error)))
        return errors

    @property
    def is_method(self) -> bool:
        return inspect.isclass(self.owner)

    @property
    def glossary(self) -> str:
        """Docstring in which the owner documents what its members share."""
        owner = f"{self.owner.__module__}.{self.owner.__qualname__}" if self.is_method else self.owner.__name__
        return (inspect.getdoc(self.owner) or "") if owner in GLOSSARIES else ""


def _entries(module: str) -> Iterator[Entry]:
    namespace = importlib.import_module(module)
    for name in getattr(namespace, "__all__", ()):
        value = getattr(namespace, name)
        if callable(value):
            yield Entry(f"{value.__module__}.{value.__qualname__}", value, namespace)
            if inspect.isclass(value):
                yield from _members(value)


def _members(value: type) -> Iterator[Entry]:
    """Yield the public methods and properties of a class and of its bases in this package."""
    own = [cls for cls in value.__mro__ if cls.__module__.startswith("rsam.")]
    foreign = {*value.__mro__} - {*own}
    for cls in own:
        for name, member in vars(cls).items():
            function = getattr(member, "__func__", member)  # of a class method
            if not name.startswith("_") and isinstance(function, FunctionType | property):
                overrides = any(name in vars(base) for base in foreign | {*cls.__mro__[1:]})
                yield Entry(f"{cls.__module__}.{cls.__qualname__}.{name}", function, cls, overrides)


def _missing_arguments(entry: Entry) -> Iterator[str]:
    is_record = dataclasses.is_dataclass(entry.value) or hasattr(entry.value, "_fields")
    if inspect.isclass(entry.value) and not is_record and not _is_own(entry.value.__init__):
        return  # the constructor is another library's
    described = set(re.findall(r"\w+", " ".join(re.findall(r"^ *([\w, *]+) : ", entry.glossary, re.M))))
    if is_record:  # whose fields are attributes
        described |= {name for attribute in entry.doc["Attributes"] for name in re.findall(r"\w+", attribute.name)}
    missing = re.findall(r"'(\S+?)'", entry.errors.get("PR01", ""))
    yield from (f"argument {name}" for name in sorted(missing) if name.lstrip("*") not in described)


def _missing_results(entry: Entry) -> Iterator[str]:
    brief = entry.is_method and entry.doc["Summary"][0].startswith(("Return ", "Tell whether "))  # which says it all
    if "RT01" in entry.errors and not brief and not entry.glossary:
        yield "section Returns"
    yields = "YD01" in entry.errors and any(isinstance(n, ast.Yield) and n.value for n in ast.walk(_tree(entry.value)))
    if yields:  # a context yields nothing
        yield "section Yields"


def _missing_example(entry: Entry) -> Iterator[str]:
    if entry.is_method:
        return  # the class shows its methods
    shared = inspect.isfunction(entry.value) and entry.glossary
    examples = doctest.DocTestParser().get_examples(shared or "\n".join(entry.doc["Examples"]))
    if not examples or any(doctest.SKIP in example.options for example in examples):
        yield "example that runs"


def _missing_errors(entry: Entry) -> Iterator[str]:
    """Yield errors that an entry raises, itself or in a function of the package that it passes its arguments to."""
    listed = set(re.findall(r"\w+", " ".join((entry.glossary, *(error.type for error in entry.doc["Raises"])))))
    cls = entry.value if inspect.isclass(entry.value) else entry.owner
    for function in _functions(entry.value):
        for error in sorted(_raised(function).union(*map(_raised, _helpers(function, cls))), key=lambda e: e.__name__):
            if not listed & {base.__name__ for base in error.__mro__[:-2]}:  # without BaseException and object
                yield f"error {error.__name__} of {function.__qualname__}"


def _functions(value: Any) -> list[Any]:
    """Return the functions that run when a value is called."""
    if not inspect.isclass(value):
        return [value.fget if isinstance(value, property) else value]
    constructors = [vars(value).get(name) for name in ("__init__", "__post_init__")]
    return [f for f in constructors if _is_own(f) and f.__code__.co_filename != "<string>"]  # which dataclasses write


def _is_own(function: Any) -> bool:
    return inspect.isfunction(function) and function.__module__.startswith("rsam.")


def _tree(function: Any) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))


def _raised(function: Any) -> set[type]:
    """Return the exceptions that the body of a function raises by name."""
    scope = vars(builtins) | inspect.unwrap(function).__globals__
    raised = set()
    for node in ast.walk(_tree(function)):
        if isinstance(node, ast.Raise) and node.exc is not None:
            cause = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            error = scope.get(cause.id) if isinstance(cause, ast.Name) else None
            # not that of an abstract method, nor a private one, which no caller is to see
            if inspect.isclass(error) and error is not NotImplementedError and not error.__name__.startswith("_"):
                raised.add(error)
    return raised


def _helpers(function: Any, cls: Any) -> Iterator[Any]:
    """Yield the functions of the package that a function calls with an argument of its own."""
    scope = inspect.unwrap(function).__globals__
    arguments = set(inspect.signature(function).parameters) - {"self", "cls"}
    for call in (node for node in ast.walk(_tree(function)) if isinstance(node, ast.Call)):
        passed = {a.id for a in (*call.args, *(k.value for k in call.keywords)) if isinstance(a, ast.Name)}
        called: Any = None
        if isinstance(call.func, ast.Name):
            called = scope.get(call.func.id)
        elif isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "self":
            called = getattr(cls, call.func.attr, None)
        if passed & arguments and _is_own(called):
            yield called


def _gaps(entry: Entry) -> list[str]:
    """Return what the docstring of a public name lacks."""
    if not (getattr(entry.value, "__doc__", None) or "").strip():
        return [] if entry.overrides else ["docstring"]
    gaps = [f"{code}: {entry.errors[code]}" for code in sorted(CHECKS & entry.errors.keys())]
    if re.search(r"\b(Alg|Def|Eq|eq|Prop|Sec|Thm)\. ", " ".join(entry.doc["Summary"])):
        gaps.append("summary without an abbreviation, at which Sphinx cuts it off")
    if not entry.overrides and not isinstance(entry.value, property):
        gaps += [*_missing_arguments(entry), *_missing_results(entry), *_missing_example(entry)]
    return gaps + list(_missing_errors(entry))


def halves(numbers: list[float], strict: bool = False) -> list[float]:
    """Halves numbers.

    Parameters
    ----------
    strict : bool
        Refuse zeros.
    """
    if strict and 0 in numbers:
        raise ValueError("a number is 0")
    return [number / 2 for number in numbers]


def test_that_what_a_docstring_lacks_is_found() -> None:
    gaps = _gaps(Entry(f"{__name__}.halves", halves, importlib.import_module(__name__)))
    expected = {"argument numbers", "section Returns", "example that runs", "error ValueError of halves"}
    assert expected == {gap for gap in gaps if not re.match("[A-Z]{2}", gap)}
    assert any(gap.startswith("SS05") for gap in gaps)  # the summary says what it does, not what to do


@pytest.mark.parametrize("module", _public_modules())
def test_that_docstrings_say_all(module: str) -> None:
    framework = module.removeprefix("rsam.integrations.")
    if framework != module and importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    lacking = {entry.name: gaps for entry in _entries(module) if (gaps := _gaps(entry))}
    assert not lacking, "\n".join(f"{name} lacks {', '.join(gaps)}" for name, gaps in lacking.items())
