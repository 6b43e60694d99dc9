"""Define linear operators in orthonormal coordinates of the tangent space."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from rsam.curvature.linear import LinearOperator, is_operator
from rsam.evaluation.parameters import as_integer
from rsam.evaluation.risk import Data, LossFunc, Params, Risk, accumulators

__all__ = ["TangentOperator", "one_call"]

_T = TypeVar("_T")


class TangentOperator(LinearOperator):
    r"""Self-adjoint operator on the tangent space at the parameters, in coordinates of an orthonormal frame.

    For the isometry :math:`B` from coordinates to tangents and a bilinear form :math:`A` on tangents, the operator is
    :math:`B^\top A B`, a symmetric matrix whose size is the dimension of the product manifold. Its trace, eigenvalues
    and spectrum are those of :math:`A` in the metric, and no direction leaves the tangent space. Plain parameters are
    their own coordinates.

    Each product evaluates model and loss anew, so that it follows changes of weights, data and modes. With
    ``keep_graphs``, the default for a single batch, estimators evaluate both once for all products of a call; for
    products of your own :meth:`keeping_graphs` does the same.

    See :class:`RiemannianHessian` for the parameters.

    Attributes
    ----------
    shape : tuple of int
        ``(dimension, dimension)``.
    risk : Risk
        The function whose curvature this is.
    blocks : list of list of int
        Indices of the parameters of each block.
    """

    SELF_ADJOINT = True
    #: Whether :meth:`_correct` asks for the gradient of the risk.
    NEEDS_GRADIENT = False

    def __init__(
        self,
        model_func: Callable[[Any], Any],
        loss_func: LossFunc,
        params: Params,
        data: Data,
        progressbar: bool = False,
        check_deterministic: bool = True,
        num_data: int | None = None,
        block_sizes: Sequence[int] | None = None,
        batch_size_fn: Callable[[Any], int] | None = None,
        *,
        keep_graphs: bool | None = None,
    ) -> None:
        self.risk = Risk(model_func, loss_func, params, data, num_data, batch_size_fn, progressbar)
        self.blocks = _blocks(block_sizes, len(self.risk.params))
        one_batch = isinstance(self.risk.data, Sequence) and len(self.risk.data) == 1
        self._kept_in_calls = one_batch if keep_graphs is None else keep_graphs
        self._keepers = 0  # number of open contexts
        self._graphs: list[tuple[Any, float]] | None = None
        self._kept_at: list[tuple[int, int]] = []
        shapes = [tuple(shape) for shape in self.risk.space.coordinates_shape(self.risk.params)]
        super().__init__(shapes, shapes)
        if check_deterministic and not isinstance(self.risk.data, Sequence):
            self._check_deterministic()

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self._common({p.device for p in self.risk.params}, "device")

    @property
    def dtype(self) -> torch.dtype:
        """Real dtype of the coordinates: at least single precision, since torch's factorisations need it."""
        return self._common({torch.promote_types(p.dtype.to_real(), torch.float32) for p in self.risk.params}, "dtype")

    def _common(self, values: set[_T], attribute: str) -> _T:
        if len(values) != 1:
            raise RuntimeError(f"the parameters have several values of {attribute}: {sorted(map(str, values))}")
        return values.pop()

    # -- coordinates --------------------------------------------------------------------------------------------

    def tangents(self, coordinates: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Return the tangents with given coordinates, one per parameter.

        Parameters
        ----------
        coordinates : Tensor or list of Tensor
            Shape ``(dimension,)``, or one tensor per parameter.

        Raises
        ------
        ValueError
            For numbers that are not real and floating-point, and for other shapes.
        """
        pieces = self.split(coordinates)
        for z in pieces:
            if not z.is_floating_point():
                raise ValueError(
                    f"vectors must hold real floating-point numbers, got {z.dtype}; convert them, for example to "
                    f"{self.dtype}"
                )
        with torch.no_grad():
            real = [z.to(p.dtype.to_real()).contiguous() for p, z in zip(self.risk.params, pieces, strict=True)]
            tangents: list[Tensor] = self.risk.space.from_coordinates(self.risk.params, real)
        return tangents

    def coordinates(self, tangents: Sequence[Tensor]) -> Tensor:
        """Return the coordinates ``(dimension,)`` of tangents at the parameters; inverse to :meth:`tangents`.

        Parameters
        ----------
        tangents : list of Tensor
            One per parameter, of its shape.
        """
        with torch.no_grad():
            covectors = self.risk.space.lower_index(self.risk.params, list(tangents))
            parts = self.risk.space.to_coordinates(self.risk.params, covectors)
        return torch.cat([c.flatten().to(self.dtype) for c in parts])

    def split(self, coordinates: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Return coordinates as a list with one tensor per parameter.

        Parameters
        ----------
        coordinates : Tensor or list of Tensor
            Shape ``(dimension,)``, or such a list.
        """
        if not isinstance(coordinates, Tensor):
            return list(coordinates)
        return [z.reshape(s) for z, s in zip(coordinates.split(self._in_shape_flat), self._in_shape, strict=True)]

    # -- products -----------------------------------------------------------------------------------------------

    def _matmat(self, X: list[Tensor]) -> list[Tensor]:
        columns = zip(*(x.unbind(-1) for x in X), strict=True)
        with torch.no_grad():
            covectors = self._apply_all([self.tangents(column) for column in columns])
            results = [self.risk.space.to_coordinates(self.risk.params, c) for c in covectors]
        self.risk.check_finite([sum(parts) for parts in zip(*results, strict=True)], "the product with {} is")
        rows = zip(*results, strict=True) if results else [()] * len(X)
        return [torch.stack(row, -1).to(x.dtype) if row else x.clone() for x, row in zip(X, rows, strict=True)]

    def _apply_all(self, tangents: list[list[Tensor]]) -> list[list[Tensor]]:
        """Return covectors of the bilinear form for each tangent: means over the batches, plus the geometry's term."""
        sums = [accumulators(tangent) for tangent in tangents]
        slopes = accumulators(self.risk.params)
        weights = []
        try:
            with self.risk.evaluating(), torch.enable_grad():
                for graph, weight in self._each_graph():
                    weights.append(weight)
                    for total, tangent in zip(sums, tangents, strict=True):
                        torch._foreach_add_(total, self._product(graph, tangent), alpha=weight)
                    if self.NEEDS_GRADIENT:
                        torch._foreach_add_(slopes, self._gradient(graph), alpha=weight)
        except RuntimeError as error:
            explained = self.risk.explain(error)
            if explained is error:
                raise
            raise explained from error
        total_weight = self.risk.total(weights)
        for total in (slopes, *sums):
            torch._foreach_div_(total, total_weight)
        return [self._finish(total, slopes, tangent) for total, tangent in zip(sums, tangents, strict=True)]

    def _finish(self, total: list[Tensor], slopes: list[Tensor], tangent: list[Tensor]) -> list[Tensor]:
        products, gradient = ([t.to(v.dtype) for t, v in zip(ts, tangent, strict=True)] for ts in (total, slopes))
        return self._correct(products, gradient, tangent)

    def _build(self) -> Iterator[tuple[Any, float]]:
        """Yield graph and weight of each batch, for :meth:`_product`."""
        raise NotImplementedError

    def _product(self, graph: Any, tangent: list[Tensor]) -> list[Tensor]:
        """Return the Euclidean product with a batch's matrix, block by block."""
        raise NotImplementedError

    def _gradient(self, graph: Any) -> list[Tensor]:
        """Return the Euclidean gradient of a batch, if :meth:`_correct` needs it."""
        raise NotImplementedError

    def _correct(self, products: list[Tensor], gradient: list[Tensor], tangent: list[Tensor]) -> list[Tensor]:
        """Add the term of the parameters' geometry."""
        return products

    # -- graphs -------------------------------------------------------------------------------------------------

    @contextmanager
    def keeping_graphs(self) -> Iterator[None]:
        """Evaluate model and loss once for all products within this context.

        The context holds the memory of a forward and a backward pass for every batch. Weights, data, modes and
        everything else that model and loss depend on must not change in it.

        Raises
        ------
        RuntimeError
            In a product, if a parameter was written to since the first one.

        Examples
        --------
        >>> import torch, rsam
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> x, y = torch.eye(2), torch.zeros(2, 1)
        >>> hessian = rsam.curvature.RiemannianHessian(model, torch.nn.MSELoss(), model.parameters(), (x, y))
        >>> with hessian.keeping_graphs():
        ...     products = [hessian @ v for v in x]  # of one evaluation of the model
        >>> products
        [tensor([1., 0.]), tensor([0., 1.])]
        """
        self._keepers += 1
        try:
            yield
        finally:
            self._keepers -= 1
            if not self._keepers:
                self._graphs = None

    def _each_graph(self) -> Iterable[tuple[Any, float]]:
        if not self._keepers:
            return self._build()
        if self._graphs is None:
            self._graphs = list(self._build())
            self._kept_at = self._marks()
        for i, (now, then) in enumerate(zip(self._marks(), self._kept_at, strict=True)):
            if now != then:
                raise RuntimeError(
                    f"{self.risk.describe(i)} was written to while graphs were kept: change weights outside of "
                    "keeping_graphs()"
                )
        return self._graphs

    def _marks(self) -> list[tuple[int, int]]:
        """Return marks of the parameters that any optimizer's step changes."""
        return [(p.data_ptr(), p._version) for p in self.risk.params]

    def _check_deterministic(self) -> None:
        first, second = self.risk.gradient(), self.risk.gradient()
        for i, (g, h) in enumerate(zip(first, second, strict=True)):
            if not torch.allclose(g, h, rtol=5e-5, atol=1e-6 + 5e-5 * float(h.abs().max())):
                raise RuntimeError(
                    f"two passes over data give different gradients of {self.risk.describe(i)}, so that this is no "
                    "linear operator: is the loader random (drop_last, augmentation, shuffled batches under batch "
                    "norm)? check_deterministic=False goes on regardless"
                )


def _blocks(block_sizes: Sequence[int] | None, count: int) -> list[list[int]]:
    sizes = [count] if block_sizes is None else [as_integer("each of block_sizes", size) for size in block_sizes]
    if sum(sizes) != count or any(size < 1 for size in sizes):
        raise ValueError(f"block_sizes must be positive and sum to the {count} parameters, got {sizes}")
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [list(range(start, start + size)) for start, size in zip(starts, sizes, strict=True)]


@contextmanager
def one_call(operator: LinearOperator) -> Iterator[None]:
    """Keep the graphs of an operator, and of those it is composed of, for one call of an estimator."""
    with ExitStack() as stack:
        for part in _parts(operator):
            if part._kept_in_calls:
                stack.enter_context(part.keeping_graphs())
        yield


def _parts(operator: LinearOperator) -> Iterator[TangentOperator]:
    if isinstance(operator, TangentOperator):
        yield operator
        return
    for value in vars(operator).values():
        for part in value if isinstance(value, tuple) else (value,):
            if is_operator(part):
                yield from _parts(part)
