"""Define the Hessian operator of an empirical risk."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rsam import geometry
from rsam.curvature.operator import TangentOperator

__all__ = ["RiemannianHessian"]

Graph = list[Tensor]


class RiemannianHessian(TangentOperator):
    r"""Linear operator of the Riemannian Hessian, with the arguments of :class:`curvlinops.HessianLinearOperator`.

    .. math::

        \langle \mathrm{Hess} f(x)[v], w \rangle_x = w^\top \nabla^2 f(x)\, v + \langle \nabla f(x), a_x(v, w) \rangle

    with the Euclidean gradient and Hessian, and the polarised acceleration :math:`a_x` of the geodesics (Absil et al.
    2008, Sec. 5.5, in ambient coordinates). Its quadratic form is the second derivative of the risk along geodesics.
    It acts in orthonormal coordinates of the tangent space, so that :func:`curvlinops.hutchinson_trace`,
    :func:`~curvlinops.hutchpp_trace`, :func:`~curvlinops.xtrace`, :func:`~curvlinops.lanczos_approximate_spectrum` and
    SciPy's solvers work on it unchanged. On plain parameters it is the Euclidean Hessian.

    Products are second backward passes, since torch's forward modes are silently wrong through batch norm. For networks
    with ReLU or max-pooling this is the Hessian between the kinks, whereas differences cross the kinks.

    Parameters
    ----------
    model_func : callable
        Maps inputs to outputs; as a rule a :class:`torch.nn.Module`, which is evaluated in its present mode. Batch norm
        in train mode is differentiated through the statistics of each batch, in eval mode it is an affine map. A module
        that :func:`torch.compile` made is evaluated uncompiled.
    loss_func : callable or None
        Maps outputs and targets, of any type, to a scalar; its ``reduction`` says how batches combine, ``"mean"`` if it
        has none. None for a model that returns its loss, as those of Transformers do: a tensor, or an output with an
        attribute or item ``loss``.
    params : iterable of Tensor, or of (name, Tensor)
        The parameters to differentiate in, plain or on manifolds. A batch may not depend on some, such as those of an
        expert or of another task; its derivatives in them are zero.
    data : tuple, mapping or iterable
        One batch, or a list or loader of batches. A batch is a pair ``(inputs, targets)``, or a mapping: the model
        takes it as keyword arguments, and the loss as targets. Batches are weighted by size, with ``loss_func=None`` by
        the number of ``labels`` that are not -100, or of examples.
    progressbar : bool
        Show a bar over the batches of each product.
    check_deterministic : bool
        Compare two passes over a loader.
    num_data : int, optional
        Number of examples to divide by, if it is not that of ``data``.
    block_sizes : sequence of int, optional
        Numbers of consecutive parameters that form a block of a block-diagonal approximation, such as ``[1, 1, 1]``.
    batch_size_fn : callable, optional
        Takes the inputs of a batch, or the mapping, and returns the number of its examples; by default the length of
        the targets.
    keep_graphs : bool, optional
        Whether :func:`trace` and the other estimators evaluate the model once for all products of a call; by default
        for a single batch only. This halves the cost of a product, and holds the memory of a forward and a backward
        pass for every batch. For products of your own use :meth:`keeping_graphs`.

    Raises
    ------
    ValueError
        For bad data, parameters or block sizes; in the first product also for a loss that is no scalar or has no graph,
        and for a parameter that no batch depends on.
    NotFinite
        If loss, gradient or product are not finite; a RuntimeError.
    RuntimeError
        If two passes over a loader differ.
    UnsupportedOperation
        In a product, if a manifold has no acceleration.
    NoHigherDerivative
        If a layer has no second derivative; names it.

    Examples
    --------
    >>> import geoopt, torch, rsam
    >>> model = torch.nn.Linear(3, 1, bias=False, dtype=torch.float64)
    >>> model = rsam.nn.constrain(model, geoopt.Sphere())
    >>> x, y = torch.eye(3, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)
    >>> hessian = rsam.curvature.RiemannianHessian(model, torch.nn.MSELoss(), model.parameters(), (x, y))
    >>> hessian.shape  # the sphere has two dimensions, on which this loss is constant
    (2, 2)
    >>> bool((hessian @ torch.ones(2, dtype=torch.float64)).abs().max() < 1e-12)
    True
    """

    NEEDS_GRADIENT = True

    def _build(self) -> Iterator[tuple[Graph, float]]:
        yield from self.risk.gradients(order=2)

    def _product(self, graph: Graph, tangent: list[Tensor]) -> list[Tensor]:
        products = [torch.zeros_like(v) for v in tangent]
        for block in self.blocks:
            # the gradient has no graph where it is constant, since the loss is linear in the parameter
            moving = [i for i in block if graph[i].requires_grad]
            if not moving:
                continue
            parts = torch.autograd.grad(
                [graph[i] for i in moving],
                [self.risk.params[i] for i in block],
                [tangent[i] for i in moving],
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            for i, part in zip(block, parts, strict=True):
                products[i] = part
        return products

    def _gradient(self, graph: Graph) -> list[Tensor]:
        return [g.detach() for g in graph]

    def _correct(self, products: list[Tensor], gradient: list[Tensor], tangent: list[Tensor]) -> list[Tensor]:
        if all(map(geometry.is_plain, self.risk.params)):
            return products
        terms = self.risk.space.connection(self.risk.params, gradient, tangent)
        return [product + term for product, term in zip(products, terms, strict=True)]
