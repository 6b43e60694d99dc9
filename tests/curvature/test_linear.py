"""That our linear operators are matrices, and mix with those of curvlinops."""

from __future__ import annotations

from typing import Any

import curvlinops
import numpy as np
import pytest
import torch
from curvlinops.examples import TensorLinearOperator
from torch import Tensor

from rsam.curvature import LinearOperator
from tests.curvature.problems import DOUBLE, dense, normal


class Matrix(LinearOperator):
    """Operator from two parts, a matrix and a vector, to one or two parts, given by a dense matrix."""

    def __init__(self, entries: Tensor, in_shape: Any = ((2, 2), (1,)), out_shape: Any = ((4,),)) -> None:
        super().__init__(in_shape, out_shape)
        self.entries = entries

    device = property(lambda self: self.entries.device)
    dtype = property(lambda self: self.entries.dtype)

    def _matmat(self, X: list[Tensor]) -> list[Tensor]:
        k = X[0].shape[-1]
        columns = torch.cat([x.reshape(size, k) for x, size in zip(X, self._in_shape_flat, strict=True)])
        parts = (self.entries @ columns).split(self._out_shape_flat)
        return [part.reshape(*s, k) for part, s in zip(parts, self._out_shape, strict=True)]

    def _adjoint(self) -> Matrix:
        return Matrix(self.entries.mT, self._out_shape, self._in_shape)


A, B = normal(4, 5), normal(4, 5, seed=1)
COLUMNS = normal(5, 3, seed=2)
TWO_PARTS, ONE_PART = [(2, 2), (1,)], [(4,)]


def square(matrix: Tensor) -> Matrix:
    return Matrix(matrix, [(5,)], [(5,)])


def test_that_products_are_those_of_the_matrix_whole_and_in_parts() -> None:
    a = Matrix(A)
    parts = [COLUMNS[:4].reshape(2, 2, 3), COLUMNS[4:]]
    for actual, expected in (
        (a @ COLUMNS, A @ COLUMNS),
        (a @ COLUMNS[:, 0], A @ COLUMNS[:, 0]),
        (a @ COLUMNS[:, :0], A @ COLUMNS[:, :0]),
        ((a @ parts)[0], A @ COLUMNS),
        ((a @ [part[..., 0] for part in parts])[0], A @ COLUMNS[:, 0]),
        (torch.cat([part.flatten() for part in a.adjoint() @ [A[:, 0]]]), A.mT @ A[:, 0]),
    ):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    ("composed", "expected"),
    [
        pytest.param(lambda a, b: a + b, lambda a, b: a + b, id="sum"),
        pytest.param(lambda a, b: a - b, lambda a, b: a - b, id="difference"),
        pytest.param(lambda a, b: 2 * a * 3, lambda a, b: 6 * a, id="multiple"),
        pytest.param(lambda a, b: a @ b.adjoint(), lambda a, b: a @ b.mT, id="product"),
        pytest.param(lambda a, b: (a - 2 * b).adjoint() @ b, lambda a, b: (a - 2 * b).mT @ b, id="adjoint"),
    ],
)
def test_that_composed_operators_are_the_composed_matrices(composed: Any, expected: Any) -> None:
    operator, matrix = composed(Matrix(A), Matrix(B)), expected(A, B)
    assert operator.shape == tuple(matrix.shape)
    torch.testing.assert_close(dense(operator), matrix)
    torch.testing.assert_close(dense(operator.adjoint()), matrix.mT)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128, np.int64])
def test_that_scipy_multiplies_arrays_of_its_dtypes(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-9, 9, (n, 2)).astype(dtype) for n in (5, 4))
    if dtype is np.complex128:
        x, y = x + 1j * x[::-1], y + 1j * y[::-1]
    operator, matrix = Matrix(A).to_scipy(), A.numpy()
    tolerance = 1e-6 if dtype is np.float32 else 1e-12
    np.testing.assert_allclose(operator.matmat(x), matrix @ x, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(operator.matvec(x[:, 0]), matrix @ x[:, 0], rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(operator.rmatmat(y), matrix.T @ y, rtol=tolerance, atol=tolerance)


def test_that_operators_of_curvlinops_may_be_operands_on_either_side() -> None:
    matrix, other = normal(5, 5), normal(5, 5, seed=1)
    ours, theirs = square(matrix), TensorLinearOperator(other)
    torch.testing.assert_close(dense(ours - 2 * theirs), matrix - 2 * other)
    torch.testing.assert_close(dense(theirs - 2 * ours), other - 2 * matrix)
    torch.testing.assert_close(dense(ours @ theirs), matrix @ other)
    torch.testing.assert_close(dense((theirs + ours).adjoint()), (matrix + other).mT)


def test_that_inverses_and_parts_of_curvlinops_take_our_operators() -> None:
    matrix = torch.eye(5, dtype=DOUBLE) + 0.1 * normal(5, 5)
    matrix = matrix @ matrix.mT
    ours = square(matrix)
    ours.SELF_ADJOINT = True
    inverse = curvlinops.CGInverseLinearOperator(ours, tolerance=1e-14, eps=1e-14)
    torch.testing.assert_close(dense(inverse), torch.linalg.inv(matrix), rtol=1e-6, atol=1e-6)
    neumann = curvlinops.NeumannInverseLinearOperator(ours, num_terms=400, scale=0.5)
    torch.testing.assert_close(dense(neumann), torch.linalg.inv(matrix), rtol=1e-6, atol=1e-6)
    part = curvlinops.SubmatrixLinearOperator(ours, [0, 2], [1, 3, 4])
    torch.testing.assert_close(dense(part), matrix[[0, 2]][:, [1, 3, 4]])


@pytest.mark.parametrize(
    ("operate", "message"),
    [
        (lambda a: a @ COLUMNS[:4], r"tensors \(5,\) or \(5, k\), got \(4, 3\)"),
        (lambda a: a @ COLUMNS[..., None], r"got \(5, 3, 1\)"),
        (lambda a: a @ torch.tensor(1.0), r"got \(\)"),
        (lambda a: a @ [COLUMNS], r"shapes \[\(2, 2\), \(1,\)\], with or without .* got \[\(5, 3\)\]"),
        (lambda a: a @ [normal(2, 2, 3), normal(1, 2)], r"got \[\(2, 2, 3\), \(1, 2\)\]"),
        (lambda a: a @ 2.0, "not float"),
        (lambda a: a @ a, "first operator takes the shapes"),
        (lambda a: a + a.adjoint(), "differ in the shapes"),
        (lambda a: a + Matrix(A.float()), "differ in dtype: torch.float64 and torch.float32"),
        (lambda a: a @ Matrix(A.mT.to("meta"), ONE_PART, TWO_PARTS), "differ in device: cpu and meta"),
    ],
)
def test_that_what_does_not_fit_is_refused(operate: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        operate(Matrix(A))
