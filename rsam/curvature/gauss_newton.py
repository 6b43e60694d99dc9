"""Define the Gauss-Newton operator of an empirical risk, in the metric of the parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rsam.curvature.operator import TangentOperator
from rsam.evaluation import check_graph
from rsam.evaluation.parameters import check_dtypes
from rsam.evaluation.reach import graph_of
from rsam.evaluation.reduction import check_is_tensor

__all__ = ["RiemannianGaussNewton"]


class Graph(NamedTuple):
    """Parts of a batch's graph that a product with its matrix needs."""

    outputs: Tensor
    dual: Tensor  # u, in which the pulled-back covectors are linear
    pulled: list[Tensor]  # J^T u
    leaf: Tensor  # the outputs, without the graph of the model
    slope: Tensor  # the derivative of the loss in these outputs


class RiemannianGaussNewton(TangentOperator):
    r"""Linear operator of the generalised Gauss-Newton matrix :math:`J^\top \Lambda J`, semidefinite for convex losses.

    :math:`J` is the Jacobian of the outputs and :math:`\Lambda` the Hessian of the loss in the outputs. The matrix is
    a metric pulled back to the parameters, so that no acceleration of geodesics enters: on manifolds it is restricted
    to the tangent space, in orthonormal coordinates. For cross-entropy, squared error and the binary cross-entropy of
    logits it is the Fisher information matrix (Martens 2020, Sec. 9), whose trace :func:`fisher_trace` estimates too.

    Parameters
    ----------
    model_func : callable
        Maps inputs to outputs, as for :class:`RiemannianHessian`, but must return a tensor. For a model that returns
        more, pass a function, such as ``lambda inputs: model(**inputs).logits`` with batches ``(inputs, labels)``.
    loss_func : callable
        Maps outputs and targets to a scalar.
    params, data, progressbar, check_deterministic, num_data, block_sizes : as for :class:`RiemannianHessian`
        The parameters to differentiate in, the data, and how to go through them.
    batch_size_fn, keep_graphs : as for :class:`RiemannianHessian`
        How to weight batches, and whether estimators evaluate the model once per call.

    Raises
    ------
    ValueError, NotFinite, RuntimeError
        As :class:`RiemannianHessian`; in the first product also without a ``loss_func``.

    Examples
    --------
    >>> import torch, rsam
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> x, y = torch.eye(2), torch.zeros(2, 1)
    >>> rsam.curvature.RiemannianGaussNewton(model, torch.nn.MSELoss(), model.parameters(), (x, y)) @ torch.ones(2)
    tensor([1., 1.])
    """

    def _build(self) -> Iterator[tuple[Graph, float]]:
        if self.risk.loss_func is None:
            raise ValueError("loss_func is None; the Gauss-Newton matrix needs a loss of the model's outputs")
        for outputs, targets, weight in self.risk.outputs(order=2):
            check_is_tensor(outputs)
            check_dtypes(graph_of(outputs).dtypes)
            dual = torch.zeros_like(outputs, requires_grad=True)
            leaf = outputs.detach().requires_grad_()
            loss = self.risk.loss_of(leaf, targets, order=2)
            if loss.requires_grad:
                pulled = self.risk.gradient_of(outputs, create_graph=True, grad_outputs=dual)
                (slope,) = torch.autograd.grad(loss, leaf, create_graph=True)
                check_graph(slope.sum(), order=2)
            else:
                pulled, slope = self.risk.gradient_of(loss), torch.zeros_like(leaf)
            yield Graph(outputs, dual, pulled, leaf, slope), weight

    def _product(self, graph: Graph, tangent: list[Tensor]) -> list[Tensor]:
        products = [torch.zeros_like(v) for v in tangent]
        if not graph.slope.requires_grad:  # the loss is linear in the outputs
            return products
        for block in self.blocks:
            moving = [i for i in block if graph.pulled[i].requires_grad]  # outputs depend on these only
            if not moving:
                continue
            pulled, vectors = [graph.pulled[i] for i in moving], [tangent[i] for i in moving]
            (pushed,) = torch.autograd.grad(pulled, graph.dual, vectors, retain_graph=True)
            (weighted,) = torch.autograd.grad(
                graph.slope, graph.leaf, pushed, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            params = [self.risk.params[i] for i in moving]
            parts = torch.autograd.grad(graph.outputs, params, weighted, retain_graph=True)
            for i, part in zip(moving, parts, strict=True):
                products[i] = part
        return products
