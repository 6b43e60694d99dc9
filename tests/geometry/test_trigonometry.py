"""That functions of squared angles are those of higher precision, through zero and where the series ends."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import pytest
import torch
from torch import Tensor

from rsam.geometry import trigonometry

Function = Callable[[mpmath.mpf], mpmath.mpf]


def of_root(function: Function, over: bool = False) -> Function:
    """Return a function of the square of its argument, divided by the argument if asked; at zero the limit is one."""

    def of_square(s: mpmath.mpf) -> mpmath.mpf:
        root = mpmath.sqrt(abs(s))
        return function(root) / (root if over else 1) if s else mpmath.mpf(1)

    return of_square


tan, tanh = of_root(mpmath.tan, over=True), of_root(mpmath.tanh, over=True)
FUNCTIONS: dict[str, Function] = {
    "cos_sqrt": of_root(mpmath.cos),
    "sinc_sqrt": of_root(mpmath.sin, over=True),
    "cosh_sqrt": of_root(mpmath.cosh),
    "sinhc_sqrt": of_root(mpmath.sinh, over=True),
    "tanc_sqrt": lambda s: tan(s) if s >= 0 else tanh(s),
}
#: Squares from zero over the end of the series, at 0.01, to angles of several turns.
SQUARES = [0.0, 1e-300, 1e-20, 1e-9, 1e-4, 3e-3, 9.99e-3, 1.001e-2, 0.3, 2.0, 30.0]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_that_values_and_slopes_are_those_of_higher_precision(name: str) -> None:
    squares = SQUARES + ([-s for s in SQUARES] if name == "tanc_sqrt" else [])
    s = torch.tensor(squares, dtype=torch.float64, requires_grad=True)
    values: Tensor = getattr(trigonometry, name)(s)
    (slopes,) = torch.autograd.grad(values.sum(), s)
    with mpmath.workdps(60):
        expected = [FUNCTIONS[name](mpmath.mpf(square)) for square in squares]
        h = mpmath.mpf("1e-15")  # of a central difference, whose error is its square
        differences = [
            (FUNCTIONS[name](square + h) - FUNCTIONS[name](square - h)) / (2 * h) if abs(square) > h else None
            for square in map(mpmath.mpf, squares)
        ]
    eps = torch.finfo(torch.float64).eps
    # a few roundings; that of an angle of several turns is amplified by the slope
    torch.testing.assert_close(
        values.detach(), torch.tensor(list(map(float, expected)), dtype=torch.float64), rtol=8 * eps, atol=16 * eps
    )
    for slope, difference in zip(slopes.tolist(), differences, strict=True):
        # just behind the end of the series terms that are 100 times as large cancel
        assert difference is None or slope == pytest.approx(float(difference), rel=1e-12)
