r"""Compute trigonometric functions of a *squared* angle.

:math:`\cos\sqrt s`, :math:`\sin\sqrt s/\sqrt s` and similar functions are analytic in ``s``, whereas the norm of a
tangent vector has no derivative at zero. geoopt's exponential maps use the norm, so that their derivatives for a zero
step are NaN.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cos_sqrt", "cosh_sqrt", "sinc_sqrt", "sinhc_sqrt", "tanc_sqrt"]

# Below this |s| the Taylor polynomials here are exact to float64 rounding (next term < 1e-17).
_SMALL = 1e-2

_COS = (1.0, -1 / 2, 1 / 24, -1 / 720, 1 / 40320)
_SINC = (1.0, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880)
_TANC = (1.0, 1 / 3, 2 / 15, 17 / 315, 62 / 2835, 1382 / 155925, 21844 / 6081075, 929569 / 638512875)


def _polynomial(coefficients: tuple[float, ...], s: Tensor) -> Tensor:
    value = torch.full_like(s, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * s + coefficient
    return value


def _alternate(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(abs(c) for c in coefficients)


def _away_from_zero(s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a mask of small ``s``, and ``s`` and its root with small ones replaced, so that derivatives are finite."""
    small = s.abs() < _SMALL
    safe = torch.where(small, torch.ones_like(s), s)
    return small, safe, safe.abs().sqrt()


def cos_sqrt(s: Tensor) -> Tensor:
    """Return the cosine of the root of ``s >= 0``."""
    small, _, root = _away_from_zero(s)
    return torch.where(small, _polynomial(_COS, s), root.cos())


def sinc_sqrt(s: Tensor) -> Tensor:
    """Return the sine of the root of ``s >= 0``, over the root."""
    small, _, root = _away_from_zero(s)
    return torch.where(small, _polynomial(_SINC, s), root.sin() / root)


def cosh_sqrt(s: Tensor) -> Tensor:
    """Return the hyperbolic cosine of the root of ``s >= 0``."""
    small, _, root = _away_from_zero(s)
    return torch.where(small, _polynomial(_alternate(_COS), s), root.cosh())


def sinhc_sqrt(s: Tensor) -> Tensor:
    """Return the hyperbolic sine of the root of ``s >= 0``, over the root."""
    small, _, root = _away_from_zero(s)
    return torch.where(small, _polynomial(_alternate(_SINC), s), root.sinh() / root)


def tanc_sqrt(s: Tensor) -> Tensor:
    """Return ``tan(r) / r`` with ``r`` the root of ``s``, or for negative ``s`` ``tanh(r) / r`` with that of ``-s``."""
    small, safe, root = _away_from_zero(s)
    large = torch.where(safe > 0, root.tan(), root.tanh()) / root
    return torch.where(small, _polynomial(_TANC, s), large)
