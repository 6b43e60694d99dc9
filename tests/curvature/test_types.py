"""That a user's type checker sees what the package returns: mypy reads this file too, and refuses a wrong type."""

from __future__ import annotations

from typing import assert_type

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from rsam import curvature, losses
from rsam.curvature.linear import LinearOperator


def test_that_curvature_is_typed() -> None:
    model, loss = nn.Linear(2, 1), nn.MSELoss()
    batch = torch.ones(3, 2), torch.zeros(3, 1)
    loader = DataLoader(TensorDataset(*batch))
    hessian = curvature.RiemannianHessian(model, loss, model.parameters(), loader)
    function = curvature.RiemannianGaussNewton(
        lambda x: model(x), nn.functional.mse_loss, [("weight", model.weight)], [batch]
    )
    own = curvature.RiemannianHessian(lambda x: model(x).sum(), None, model.named_parameters(), {"x": batch[0]})
    shape = assert_type(hessian.shape, tuple[int, int])
    product = assert_type(hessian @ torch.ones(3), Tensor)
    parts = assert_type(hessian @ [torch.ones(1, 2), torch.ones(1)], list[Tensor])
    composed = assert_type(hessian - 2.0 * (own @ own), LinearOperator)
    assert (shape, product.shape, len(parts), composed.shape) == ((3, 3), (3,), 2, (3, 3))
    assert_type(hessian.adjoint() @ product, Tensor)
    assert_type(hessian.tangents(product), list[Tensor])
    estimates = [
        assert_type(curvature.trace(hessian, 2), curvature.Estimate),
        assert_type(curvature.layer_traces(function, 2), dict[str, curvature.Estimate])["weight"],
        assert_type(curvature.fisher_trace(model, loss, model.parameters(), loader, 2), curvature.Estimate),
        assert_type(curvature.sharpness(model, loss, model.parameters(), loader), curvature.Estimate),
    ]
    assert all(isinstance(estimate, curvature.Estimate) for estimate in estimates)
    assert_type(estimates[0].interval(), tuple[float, float])
    assert_type(curvature.gradient_norm(model, loss, model.parameters(), loader), float)
    case = model, loss, model.named_parameters(), loader
    line = assert_type(curvature.landscape.line(*case, other=model, steps=2), curvature.landscape.Line)
    assert line.lengths == (0.0,)
    directions = assert_type(curvature.landscape.random_directions(model.parameters()), list[list[Tensor]])
    case = model, loss, model.named_parameters(), loader
    assert_type(curvature.landscape.plane(*case, directions, steps=2), curvature.landscape.Plane)
    assert_type(curvature.top_eigenvalues(hessian).values, Tensor)
    assert_type(curvature.spectral_density(hessian, 2).density, Tensor)


def test_that_penalties_are_typed() -> None:
    model, x = nn.Linear(2, 3), torch.ones(4, 2)

    def loss() -> Tensor:
        return model(x).square().sum()

    norm = losses.GradientNorm(model.parameters(), method="difference")
    values = [
        assert_type(norm(loss), Tensor),
        assert_type(norm.objective(loss), Tensor),
        assert_type(losses.HessianTrace(model.named_parameters())(loss()), Tensor),
        assert_type(losses.FisherTrace(model.parameters()).objective(lambda: (loss(), model(x))), Tensor),
        assert_type(losses.Sharpness(model.parameters(), 0.1)(loss), Tensor),
    ]
    assert all(value.shape == () for value in values)
    assert_type(norm.weight, float)
