"""That the Gauss-Newton matrix is that of curvlinops and of dense Jacobians, and the Fisher trace is its trace."""

from __future__ import annotations

from collections.abc import Callable

import curvlinops
import geoopt
import pytest
import torch
from torch import Tensor, nn

import rsam
from rsam import geometry
from rsam.curvature import Estimate, RiemannianGaussNewton, fisher_trace, trace
from tests.curvature.problems import (
    Batch,
    batches,
    dense,
    examples,
    generator,
    labelled,
    mixed_network,
    network,
    normal,
)


def ignoring() -> Batch:
    x, y = labelled()
    return x, torch.where(torch.arange(12) % 3 == 0, -100, y)


def binary() -> Batch:
    x, _ = examples()
    return x, (normal(12, 3, seed=9) > 0).double()


def probabilities() -> Batch:
    x, _ = examples()
    return x, normal(12, 3, seed=9).softmax(1)


LOSSES = [
    pytest.param(nn.MSELoss, examples, id="MSE"),
    pytest.param(nn.CrossEntropyLoss, labelled, id="CE"),
    pytest.param(nn.CrossEntropyLoss, ignoring, id="CE ignoring"),
    pytest.param(nn.CrossEntropyLoss, probabilities, id="CE probabilities"),
    pytest.param(nn.BCEWithLogitsLoss, binary, id="BCE"),
]
Data = Callable[[], Batch]


@pytest.mark.parametrize("sizes", [(12,), (7, 5)], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("loss", "data"), [p for p in LOSSES if p.id != "CE ignoring"])
def test_that_the_matrix_is_that_of_curvlinops(
    loss: type[nn.Module], data: Data, reduction: str, sizes: tuple[int, ...]
) -> None:
    model = network()
    params, pieces, loss_func = list(model.parameters()), batches(data(), *sizes), loss(reduction=reduction)
    ours = RiemannianGaussNewton(model, loss_func, params, pieces)
    theirs = curvlinops.GGNLinearOperator(model, loss_func, params, pieces)
    torch.testing.assert_close(dense(ours), dense(theirs), rtol=1e-10, atol=1e-12)


def dense_gauss_newton(model: nn.Module, loss_func: nn.Module, batch: Batch) -> Tensor:
    """Compute J^T Lambda J on a basis of the tangent space that is independent of the operator."""
    names, params = zip(*model.named_parameters(), strict=True)
    values = [p.detach() for p in params]

    def outputs(*values: Tensor) -> Tensor:
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (batch[0],))

    jacobians = torch.autograd.functional.jacobian(outputs, tuple(values))
    f = outputs(*values)
    root = torch.autograd.functional.hessian(lambda f: loss_func(f, batch[1]), f).reshape(f.numel(), f.numel())
    j = torch.cat([part.reshape(f.numel(), -1) for part in jacobians], 1)
    basis = []
    for k, p in enumerate(params):
        if isinstance(geometry.manifold_of(p), geoopt.Sphere):  # complete each row to an orthogonal matrix
            blocks = [torch.linalg.qr(row[:, None], "complete").Q[:, 1:] for row in p.detach()]
        else:
            blocks = [torch.eye(values[k].numel(), dtype=f.dtype)]
        basis.append(torch.block_diag(*blocks))
    b = torch.block_diag(*basis)
    return b.mT @ j.mT @ root @ j @ b


@pytest.mark.parametrize(("loss", "data"), LOSSES)
def test_that_on_a_sphere_it_is_the_euclidean_one_in_a_tangent_basis(loss: type[nn.Module], data: Data) -> None:
    model = rsam.nn.constrain(network(), geoopt.Sphere(), "*.weight")
    matrix = dense(RiemannianGaussNewton(model, loss(), model.parameters(), data()))
    expected = dense_gauss_newton(model, loss(), data())
    assert matrix.shape == expected.shape
    # the bases differ by a rotation, which does not change eigenvalues
    torch.testing.assert_close(torch.linalg.eigvalsh(matrix), torch.linalg.eigvalsh(expected), rtol=1e-9, atol=1e-12)


def test_that_blocks_are_those_of_the_whole_matrix() -> None:
    model = mixed_network()
    whole, blocks = (
        RiemannianGaussNewton(model, nn.MSELoss(), model.parameters(), examples(), block_sizes=sizes)
        for sizes in (None, [1, 2, 1])
    )
    a, b, c, d = (z.numel() for z in whole.split(torch.zeros(whole.shape[0])))
    mask = torch.block_diag(torch.ones(a, a), torch.ones(b + c, b + c), torch.ones(d, d))
    torch.testing.assert_close(dense(blocks), dense(whole) * mask, rtol=1e-10, atol=1e-12)


def test_that_a_loss_linear_in_the_outputs_has_none() -> None:
    model, batch = network(), examples()
    zero = torch.zeros(43, 43, dtype=torch.float64)
    linear = RiemannianGaussNewton(model, lambda f, y: (f * y).sum(), model.parameters(), batch)
    assert torch.equal(dense(linear), zero)
    scale = nn.Parameter(torch.ones(3, dtype=torch.float64))  # the slope depends on the scale, but not on the outputs
    scaled = RiemannianGaussNewton(model, lambda f, y: (f * scale).sum(), model.parameters(), batch)
    assert torch.equal(dense(scaled), zero)


# -- the Fisher trace -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(12,), (8, 3, 1)], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("loss", "data"), LOSSES)
def test_that_the_fisher_trace_is_that_of_the_gauss_newton_matrix_within_its_interval(
    loss: type[nn.Module], data: Data, reduction: str, sizes: tuple[int, ...]
) -> None:
    model, loss_func, pieces = mixed_network(), loss(reduction=reduction), batches(data(), *sizes)
    exact = float(trace(RiemannianGaussNewton(model, loss_func, model.parameters(), pieces), method="exact"))
    estimate = fisher_trace(model, loss_func, model.parameters(), pieces, probes=300, seed=1)
    low, high = estimate.interval(0.99)
    assert low <= exact <= high
    assert high - low < 0.5 * exact  # enough to notice a wrong number of examples, 12 for 8


def test_that_the_fisher_trace_of_pixels_counts_all_of_them() -> None:
    model = nn.Conv2d(2, 3, 1).double()
    x, y = normal(4, 2, 3, 3), torch.randint(3, (4, 3, 3), generator=generator(1))
    y[0] = -100
    exact = float(
        trace(RiemannianGaussNewton(model, nn.CrossEntropyLoss(), model.parameters(), (x, y)), method="exact")
    )
    low, high = fisher_trace(model, nn.CrossEntropyLoss(), model.parameters(), (x, y), 300).interval(0.99)
    assert low <= exact <= high and high - low < 0.25 * exact


def test_that_the_fisher_trace_of_a_single_example_without_a_batch_is_right() -> None:
    model, x, y = network(), normal(4), torch.tensor(1)
    exact = float(
        trace(RiemannianGaussNewton(model, nn.CrossEntropyLoss(), model.parameters(), (x, y)), method="exact")
    )
    low, high = fisher_trace(model, nn.CrossEntropyLoss(), model.parameters(), (x, y), 300).interval(0.99)
    assert low <= exact <= high and high - low < 0.5 * exact


def test_that_one_probe_is_exact_where_examples_share_nothing_and_batches_are_unequal() -> None:
    """For orthogonal inputs of a linear model the cross terms of the signs vanish."""
    model = nn.Linear(4, 1, bias=False).double()
    x = torch.linalg.qr(normal(4, 4)).Q * torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    data = x, torch.zeros(4, 1)
    for pieces in ([data], batches(data, 3, 1), batches(data, 1, 1, 2)):
        estimate = fisher_trace(model, nn.MSELoss(), model.parameters(), pieces, probes=1)
        assert float(estimate) == pytest.approx(2 * (1 + 4 + 9 + 16) / 4, rel=1e-12)
    halved = fisher_trace(model, nn.MSELoss(), model.parameters(), data, probes=1, num_data=8)
    assert float(halved) == pytest.approx(7.5, rel=1e-12)


def test_that_the_fisher_trace_stops_as_asked_and_repeats_itself() -> None:
    model, data = network(), labelled()

    def estimate(rtol: float, seed: int = 0) -> Estimate:
        return fisher_trace(model, nn.CrossEntropyLoss(), model.parameters(), data, 1000, rtol=rtol, seed=seed)

    loose = estimate(0.1)
    assert 10 < loose.products < 1000 and loose.standard_error <= 0.1 * loose.value
    assert estimate(10.0).products == 10
    assert torch.equal(estimate(0.1).samples, loose.samples)
    assert float(estimate(0.1, seed=1)) != float(loose)
