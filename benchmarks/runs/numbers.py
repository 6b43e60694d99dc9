"""Numbers for a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["digits", "or_none", "rounded"]


def or_none(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Return what a function measures, or None where it refuses to measure what does not exist."""
    try:
        return function(*args, **options)
    except (ValueError, RuntimeError):
        return None


def rounded(numbers: Mapping[Any, float | None]) -> dict[Any, Any]:
    """Keep five digits; None of what is not finite, for which JSON has no name."""
    return {k: _short(v, 5) for k, v in numbers.items()}


def digits(numbers: Iterable[float], kept: int) -> list[float | None]:
    """Keep so many digits of each; None of what is not finite."""
    return [_short(v, kept) for v in numbers]


def _short(value: float | None, kept: int) -> float | None:
    return float(f"{value:.{kept}g}") if value is not None and math.isfinite(value) else None
