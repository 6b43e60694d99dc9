"""Compare numbers to half the digits of their dtype, and orders of errors by slopes on a log-log line."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rsam.geometry.linalg import largest

__all__ = ["assert_close", "assert_order", "flattest_slope", "show", "tolerance"]


_LONGEST = 300


def tolerance(dtype: torch.dtype) -> float:
    """Return half the digits of a dtype, as a relative error.

    At the points of :mod:`rsam.testing` rounding errors are amplified by at most the other half; errors of a wrong
    formula are much larger.
    """
    return 4 * math.sqrt(torch.finfo(dtype).eps)


def show(a: Tensor, longest: int | None = None) -> str:
    """Format the numbers of a tensor with six digits at most, and the first of them if the text would be longer."""
    values = a.detach().resolve_conj().tolist()

    def short(value: object) -> str:
        if isinstance(value, list):
            return "[" + ", ".join(map(short, value)) + "]"
        return f"{value:.6g}"

    text = short(values)
    return text if longest is None or len(text) <= longest else f"{text[:longest]} ..."


def assert_close(actual: Tensor, expected: Tensor, what: str, *, scale: float = 0.0, slack: float = 1.0) -> None:
    """Raise if two tensors differ by more than half their digits.

    Parameters
    ----------
    actual, expected : Tensor
        The computed tensor and the expected one.
    what : str
        Name of the comparison in the message.
    scale : float
        Size of the quantities that cancelled in the computation, of which a thousand roundings are tolerated.
    slack : float
        Factor of the tolerance.

    Raises
    ------
    AssertionError
        Unless shapes and dtypes agree, all numbers are finite, and the greatest difference is within the tolerance.
    """
    if actual.shape != expected.shape:
        raise AssertionError(f"{what}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}")
    if actual.dtype != expected.dtype:  # the tolerance would be that of the wrong one
        raise AssertionError(f"{what}: {actual.dtype}, expected {expected.dtype}")
    if not torch.isfinite(actual).all():
        raise AssertionError(f"{what}: got {show(actual, _LONGEST)}, which is not finite")
    size = max(largest(actual), largest(expected))
    eps = float(torch.finfo(actual.dtype).eps)
    bound = slack * (tolerance(actual.dtype) * size + 1000 * eps * scale)
    error = largest(actual - expected)
    if not error <= bound:
        raise AssertionError(
            f"{what}: got {show(actual, _LONGEST)}, expected {show(expected, _LONGEST)} "
            f"(differs by {error:.2g}, allowed {bound:.2g})"
        )


def flattest_slope(steps: Sequence[float], errors: Sequence[float], window: int = 6) -> float | None:
    """Return the slope of the straightest piece of a log-log line, as Manopt's ``identify_linear_piece``.

    Parameters
    ----------
    steps, errors : sequence of float
        The points of the line; leave out errors that are zero.
    window : int
        Number of points in a piece.

    Returns
    -------
    float or None
        None if there are fewer than ``window`` points.

    Examples
    --------
    >>> steps = [2.0**-k for k in range(10)]
    >>> round(flattest_slope(steps, [3 * t**2 for t in steps]), 6)
    2.0
    """
    best: tuple[float, float] | None = None
    for i in range(len(steps) - window + 1):
        x = torch.tensor(steps[i : i + window], dtype=torch.float64).log()
        y = torch.tensor(errors[i : i + window], dtype=torch.float64).log()
        x, y = x - x.mean(), y - y.mean()
        slope = float((x @ y) / (x @ x))
        residual = float((y - slope * x).norm())
        if best is None or residual < best[0]:
            best = residual, slope
    return None if best is None else best[1]


def assert_order(error: Callable[[float], float], order: int, what: str, *, floor: float) -> None:
    """Raise unless ``error(t)`` vanishes as ``t ** order``.

    Parameters
    ----------
    error : callable
        Function of a step ``t`` in (0, 1].
    order : int
        The power.
    what : str
        Name of the error in the message.
    floor : float
        Size of rounding errors; errors below it are left out.

    Raises
    ------
    AssertionError
        If the slope of the error is less than the order by more than a quarter, or the error is not finite.
    """
    steps = [2.0**-k for k in range(14)]
    errors = [error(t) for t in steps]
    if not all(map(math.isfinite, errors)):
        raise AssertionError(f"{what}: the error is not finite, {errors}")
    kept = [(t, e) for t, e in zip(steps, errors, strict=True) if e > floor]
    slope = flattest_slope([t for t, _ in kept], [e for _, e in kept])
    if slope is not None and slope < order - 0.25:
        raise AssertionError(f"{what}: vanishes as t^{slope:.2f}, expected t^{order}")
