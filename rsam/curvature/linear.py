"""Define linear operators on tensors and on lists of tensors, with the interface of those of curvlinops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from rsam.evaluation.optional import optional

__all__ = ["LinearOperator", "is_operator"]


class LinearOperator:
    """Linear operator on vectors and matrices, which may also come in parts, one tensor per parameter.

    It can replace an operator of curvlinops: curvlinops' estimators work on it, and its inverses and sums read the
    attributes with an underscore. Sums, differences, multiples and products of operators are operators. Operators of
    curvlinops may be operands too, except as the left factor of a product with this one.

    A subclass defines :meth:`_matmat`, :attr:`device` and :attr:`dtype`, and :meth:`_adjoint` unless it sets
    ``SELF_ADJOINT``.

    Parameters
    ----------
    in_shape, out_shape : sequence of tuple of int
        Shapes of the parts of the vectors that it takes and returns.

    Attributes
    ----------
    shape : tuple of int
        Numbers of rows and columns.

    Raises
    ------
    ValueError
        In a product with a tensor of another shape; in a sum or product of operators that do not fit.

    Examples
    --------
    >>> import torch, rsam
    >>> class Matrix(rsam.curvature.LinearOperator):
    ...     SELF_ADJOINT, device, dtype = True, torch.device("cpu"), torch.float32
    ...     def __init__(self, entries):
    ...         super().__init__([(len(entries),)], [(len(entries),)])
    ...         self.entries = entries
    ...     def _matmat(self, X):
    ...         return [self.entries @ X[0]]
    >>> rsam.curvature.top_eigenvalues(2 * Matrix(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))).values
    tensor([6.])
    """

    SELF_ADJOINT: bool = False

    def __init__(self, in_shape: Sequence[Sequence[int]], out_shape: Sequence[Sequence[int]]) -> None:
        self._in_shape, self._out_shape = ([torch.Size(s) for s in shapes] for shapes in (in_shape, out_shape))
        self._in_shape_flat, self._out_shape_flat = (
            [s.numel() for s in shapes] for shapes in (self._in_shape, self._out_shape)
        )
        self.shape: tuple[int, int] = (sum(self._out_shape_flat), sum(self._in_shape_flat))

    # -- what a subclass defines ---------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Device of the vectors that it takes from SciPy."""
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        """Real dtype of the vectors that it takes from SciPy."""
        raise NotImplementedError

    def _matmat(self, X: list[Tensor]) -> list[Tensor]:
        """Multiply a matrix in parts, whose last dimension are the columns."""
        raise NotImplementedError

    def _adjoint(self) -> LinearOperator:
        raise NotImplementedError

    # -- products ------------------------------------------------------------------------------------------------

    @overload
    def __matmul__(self, X: Tensor) -> Tensor: ...
    @overload
    def __matmul__(self, X: list[Tensor]) -> list[Tensor]: ...
    @overload
    def __matmul__(self, X: LinearOperator) -> LinearOperator: ...
    def __matmul__(self, X: Any) -> Any:
        """Multiply a vector ``(columns,)``, a matrix ``(columns, k)``, either in parts, or another operator."""
        if is_operator(X):
            return _Product(self, X)
        if isinstance(X, Tensor):
            return self._of_tensor(X)
        if isinstance(X, list) and all(isinstance(x, Tensor) for x in X):
            return self._of_parts(X)
        raise ValueError(f"an operator multiplies a tensor, a list of tensors or an operator, not {type(X).__name__}")

    def _of_tensor(self, X: Tensor) -> Tensor:
        columns = self.shape[1]
        if X.dim() not in (1, 2) or X.shape[0] != columns:
            raise ValueError(f"the operator multiplies tensors ({columns},) or ({columns}, k), got {tuple(X.shape)}")
        matrix = X if X.dim() == 2 else X.unsqueeze(-1)
        k = matrix.shape[1]
        parts = [x.reshape(*s, k) for x, s in zip(matrix.split(self._in_shape_flat), self._in_shape, strict=True)]
        products = zip(self._matmat(parts), self._out_shape_flat, strict=True)
        product = torch.cat([p.reshape(size, k) for p, size in products])
        return product if X.dim() == 2 else product.squeeze(-1)

    def _of_parts(self, X: list[Tensor]) -> list[Tensor]:
        shapes = [x.shape for x in X]
        is_vector = shapes == self._in_shape
        is_matrix = [shape[:-1] for shape in shapes] == self._in_shape and len({shape[-1:] for shape in shapes}) == 1
        if not is_vector and not is_matrix:
            expected, got = ([tuple(s) for s in part_shapes] for part_shapes in (self._in_shape, shapes))
            raise ValueError(
                f"the operator multiplies a list of tensors of the shapes {expected}, with or without one more "
                f"dimension for columns, got {got}"
            )
        products = self._matmat([x.unsqueeze(-1) for x in X] if is_vector else X)
        return [product.squeeze(-1) for product in products] if is_vector else products

    # -- composition ---------------------------------------------------------------------------------------------

    def adjoint(self) -> LinearOperator:
        """Return the adjoint operator."""
        return self if self.SELF_ADJOINT else self._adjoint()

    def __add__(self, other: LinearOperator) -> LinearOperator:
        return _Sum(self, other)

    def __sub__(self, other: LinearOperator) -> LinearOperator:
        return _Sum(self, -1.0 * other)

    def __mul__(self, scalar: float) -> LinearOperator:
        return _Multiple(self, scalar)

    def __rmul__(self, scalar: float) -> LinearOperator:
        return _Multiple(self, scalar)

    # -- SciPy ---------------------------------------------------------------------------------------------------

    def to_scipy(self, dtype: Any = None) -> Any:
        """Return the operator as a :class:`scipy.sparse.linalg.LinearOperator`, which computes in torch.

        Parameters
        ----------
        dtype : numpy dtype, optional
            Type that SciPy computes in; double precision by default.

        Raises
        ------
        ImportError
            If SciPy is not installed.
        """
        product, adjoint = _on_arrays(self), _on_arrays(self.adjoint())
        scipy = optional("scipy.sparse.linalg", "to_scipy")
        return scipy.LinearOperator(
            self.shape, matvec=product, rmatvec=adjoint, matmat=product, rmatmat=adjoint, dtype=np.dtype(dtype)
        )


def is_operator(value: Any) -> bool:
    """Tell whether a value is an operator, ours or one of curvlinops."""
    return hasattr(value, "_in_shape")


def _on_arrays(operator: LinearOperator) -> Callable[[Any], Any]:
    """Return the products of an operator as a function of arrays."""

    def multiply(x: Any) -> Any:
        if np.iscomplexobj(x):
            return multiply(x.real) + 1j * multiply(x.imag)
        product = operator @ torch.as_tensor(x, dtype=operator.dtype, device=operator.device)
        # through double, since numpy has no bfloat16; integers become floats
        return product.detach().cpu().double().numpy().astype(np.result_type(x, np.float32))

    return multiply


class _Composed(LinearOperator):
    """Operator composed of others; the first is applied last, as in a product of matrices."""

    def __init__(self, *operands: LinearOperator) -> None:
        self._operands = operands
        first, last = operands[0], operands[-1]
        for what in ("device", "dtype"):
            if getattr(first, what) != getattr(last, what):
                raise ValueError(f"the operators differ in {what}: {getattr(first, what)} and {getattr(last, what)}")
        super().__init__(last._in_shape, first._out_shape)

    @property
    def device(self) -> torch.device:
        return self._operands[0].device

    @property
    def dtype(self) -> torch.dtype:
        return self._operands[0].dtype


class _Sum(_Composed):
    def __init__(self, first: LinearOperator, second: LinearOperator) -> None:
        super().__init__(first, second)
        shapes, others = ((o._in_shape, o._out_shape) for o in (first, second))
        if shapes != others:
            raise ValueError(f"the operators differ in the shapes that they take and return: {shapes} and {others}")
        self.SELF_ADJOINT = first.SELF_ADJOINT and second.SELF_ADJOINT

    def _matmat(self, X: list[Tensor]) -> list[Tensor]:
        first, second = (operand._matmat(X) for operand in self._operands)
        return [a + b for a, b in zip(first, second, strict=True)]

    def _adjoint(self) -> LinearOperator:
        return _Sum(*(operand.adjoint() for operand in self._operands))


class _Multiple(_Composed):
    def __init__(self, operand: LinearOperator, scalar: float) -> None:
        super().__init__(operand)
        self._scalar = scalar
        self.SELF_ADJOINT = operand.SELF_ADJOINT

    def _matmat(self, X: list[Tensor]) -> list[Tensor]:
        return [self._scalar * product for product in self._operands[0]._matmat(X)]

    def _adjoint(self) -> LinearOperator:
        return _Multiple(self._operands[0].adjoint(), self._scalar)


class _Product(_Composed):
    def __init__(self, first: LinearOperator, second: LinearOperator) -> None:
        super().__init__(first, second)
        if first._in_shape != second._out_shape:
            raise ValueError(
                f"the first operator takes the shapes {first._in_shape}, but the second returns {second._out_shape}"
            )

    def _matmat(self, X: list[Tensor]) -> list[Tensor]:
        first, second = self._operands
        return first._matmat(second._matmat(X))

    def _adjoint(self) -> LinearOperator:
        first, second = self._operands
        return _Product(second.adjoint(), first.adjoint())
