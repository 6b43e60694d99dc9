"""Check properties on drawn cases, and shrink each failure to the simplest case."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from rsam.errors import PropertyError
from rsam.testing.comparison import show

__all__ = ["Check", "Outcome", "Report", "run_checks"]

Case = Mapping[str, Any]
#: Makes a strategy for cases with the named arguments.
Cases = Callable[[Sequence[str]], st.SearchStrategy[dict[str, Any]]]

# Number of failures whose simplest case is searched for, which takes seconds: one error often breaks all that follow.
_SIMPLIFIED = 3

# Packages whose frames do not show where a user's code is wrong.
_LIBRARIES = ("rsam", "geoopt", "torch")


@dataclass(frozen=True)
class Report:
    """Record of the checked properties.

    Attributes
    ----------
    checked : tuple of str
        Names of the properties that hold.
    skipped : tuple of str
        Names of properties that need an operation the manifold does not have.

    Examples
    --------
    >>> import geoopt, rsam.testing
    >>> properties = rsam.testing.properties
    >>> chosen = [properties.the_projection_is_idempotent, properties.the_logarithm_undoes_the_exponential]
    >>> rsam.testing.check_manifold(geoopt.BirkhoffPolytope(), (2, 2), properties=chosen, max_examples=5)
    Report(checked=('the projection is idempotent',), skipped=('the logarithm undoes the exponential',))
    """

    checked: tuple[str, ...]
    skipped: tuple[str, ...]


class Check:
    """Property with its first argument, the tested object.

    Parameters
    ----------
    function : callable
        The property. It raises AssertionError, or any error except NotImplementedError, if it does not hold; its name
        is that of the property.
    subject : object
        The first argument of the function.
    """

    def __init__(self, function: Callable[..., None], subject: object) -> None:
        self.name = function.__name__.replace("_", " ")
        self.arguments = tuple(inspect.signature(function).parameters)[1:]
        self._function = function
        self._subject = subject

    def error(self, case: Case) -> Exception | None:
        """Return the error that the property raises on a case, if any."""
        # clones, since the tested object may write to its arguments
        arguments = {key: case[key].clone() if isinstance(case[key], Tensor) else case[key] for key in self.arguments}
        try:
            self._function(self._subject, **arguments)
        except Exception as error:
            return error
        return None


@dataclass
class Outcome:
    """Checked, skipped and failed properties."""

    failures: list[PropertyError]
    report: Report

    def raise_failures(self, subject: str, remarks: Sequence[str] = ()) -> None:
        """Raise one AssertionError for all failures, if there are any; remarks are its last lines."""
        if len(self.failures) == 1:
            (failure,) = self.failures
            message = "\n".join([str(failure), *remarks])
            raise PropertyError(failure.property, failure.case, message) from failure.__cause__
        if self.failures:
            head = f"{subject}: {len(self.failures)} properties do not hold; correct the first, and check again"
            raise AssertionError("\n".join([head, *map(str, self.failures), *remarks]))


def _settings(max_examples: int) -> settings:
    # derandomised, so that a run can be repeated, and without files
    return settings(
        max_examples=max_examples,
        deadline=None,
        derandomize=True,
        database=None,
        print_blob=False,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.target, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


class _AllBroken(Exception):
    """Every check has failed, so that no further case needs to be drawn."""


def run_checks(checks: Sequence[Check], cases: Cases, max_examples: int) -> Outcome:
    """Try all checks on the same cases, then search for the simplest case of the first few that failed.

    Drawing a case costs more than most properties, so all of them share it.
    """
    names = sorted({argument for check in checks for argument in check.arguments})
    reached: set[str] = set()
    trivial: set[str] = set()  # properties that hold of a zero tangent
    unsupported: set[str] = set()
    broken: dict[str, tuple[Case, Exception]] = {}

    @settings(_settings(max_examples), phases=(Phase.generate, Phase.target))
    @given(cases(names))
    def try_all(case: dict[str, Any]) -> None:
        for check in checks:
            if check.name in broken:
                continue
            error = check.error(case)
            if error is None:
                zero = any(not case[k].any() for k in check.arguments if k in ("u", "v", "w"))
                (trivial if zero else reached).add(check.name)
            elif isinstance(error, NotImplementedError):
                unsupported.add(check.name)
            else:
                broken[check.name] = {k: case[k] for k in check.arguments}, error
        if len(broken) == len(checks):
            raise _AllBroken

    with suppress(_AllBroken):
        try_all()
    failed = [check for check in checks if check.name in broken]
    failures = [
        _simplest(check, cases, max_examples) or _failure(check, *broken[check.name], "failing case")
        for check in failed[:_SIMPLIFIED]
    ]
    failures += [_failure(check, *broken[check.name]) for check in failed[_SIMPLIFIED:]]
    rest = [check.name for check in checks if check.name not in broken]
    held = reached | (trivial - unsupported)
    report = Report(tuple(n for n in rest if n in held), tuple(n for n in rest if n not in held))
    return Outcome(failures, report)


def _failure(check: Check, case: Case, error: Exception, title: str | None = None) -> PropertyError:
    """Describe how a property fails, with the case if that has a title."""
    asserted, place, message = isinstance(error, AssertionError), _place(error), str(error)
    reason = message if asserted and message else f"raises {type(error).__name__}: {message}".removesuffix(": ")
    lines = [f"not true that {check.name}", f"  {reason}", *([f"  at {place}"] if place else [])]
    if title is not None:
        lines.append(f"  {title}:")
        lines += [f"    {key} = {show(v) if isinstance(v, Tensor) else v}" for key, v in case.items()]
    failure = PropertyError(check.name, case, "\n".join(lines))
    if place or not asserted:  # the traceback of a law that does not hold says nothing
        failure.__cause__ = error
    return failure


def _place(error: Exception) -> str | None:
    """Return file and line of the last frame of the user's own code, if there is any."""
    places = [
        f"{Path(frame.f_code.co_filename).name}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in _LIBRARIES
    ]
    return places[-1] if places else None


def _simplest(check: Check, cases: Cases, max_examples: int) -> PropertyError | None:
    """Search for the simplest case that fails; None if no case fails when only the needed arguments are drawn."""

    @_settings(10 * max_examples)
    @given(cases(check.arguments))
    def run(case: dict[str, Any]) -> None:
        error = check.error(case)
        if error is not None and not isinstance(error, NotImplementedError):
            raise _failure(check, case, error, "simplest failing case")

    try:
        run()
    except PropertyError as failure:
        failure.__notes__ = []  # hypothesis repeats the case in its notes
        return failure.with_traceback(None)
    return None
