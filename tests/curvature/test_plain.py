"""That on plain parameters the operator is the Euclidean Hessian of curvlinops and of a dense computation."""

from __future__ import annotations

import curvlinops
import pytest
import torch
from torch import Tensor, nn

from rsam.curvature import RiemannianHessian, gradient_norm, layer_traces, top_eigenvalues, trace
from tests.curvature.problems import (
    batches,
    dense,
    dense_hessian,
    examples,
    functional,
    labelled,
    network,
    normal,
)

LOSSES = [
    pytest.param(loss(reduction=reduction), data, id=f"{loss.__name__} {reduction}")
    for loss, data in ((nn.MSELoss, examples), (nn.CrossEntropyLoss, labelled))
    for reduction in ("mean", "sum")
]


@pytest.mark.parametrize("sizes", [(12,), (4, 4, 4), (7, 4, 1)], ids=str)
@pytest.mark.parametrize(("loss_func", "data"), LOSSES)
def test_that_operator_and_trace_and_eigenvalues_are_those_of_curvlinops_and_of_the_dense_hessian(
    loss_func: nn.Module, data, sizes: tuple[int, ...]
) -> None:  # type: ignore[no-untyped-def]
    model = network()
    params, pieces = list(model.parameters()), batches(data(), *sizes)
    ours = RiemannianHessian(model, loss_func, params, pieces)
    theirs = curvlinops.HessianLinearOperator(model, loss_func, params, pieces)
    expected = dense_hessian(model, loss_func, data())[1]
    torch.testing.assert_close(dense(ours), expected, rtol=1e-10, atol=1e-12)
    assert ours.shape == theirs.shape
    v = normal(ours.shape[1])
    torch.testing.assert_close(ours @ v, theirs @ v, rtol=1e-10, atol=1e-12)
    as_list = [z.clone() for z in ours.split(v)]
    torch.testing.assert_close(ours @ as_list, theirs @ as_list, rtol=1e-10, atol=1e-12)
    assert float(trace(ours, method="exact")) == pytest.approx(float(expected.trace()), rel=1e-10)
    values = torch.linalg.eigvalsh(expected).flip(0)
    torch.testing.assert_close(top_eigenvalues(ours, 3).values, values[:3], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1], [2, 2], [1, 3]], ids=str)
def test_that_blocks_are_those_of_the_dense_hessian_and_of_curvlinops(sizes: list[int]) -> None:
    model = network()
    params, batch = list(model.parameters()), labelled()
    loss_func = nn.CrossEntropyLoss()
    blocks, _ = dense_hessian(model, loss_func, batch)
    owner = [i for i, size in enumerate(sizes) for _ in range(size)]
    rows = [
        torch.cat([block * (owner[i] == owner[j]) for j, block in enumerate(row)], 1) for i, row in enumerate(blocks)
    ]
    ours = RiemannianHessian(model, loss_func, params, batch, block_sizes=sizes)
    torch.testing.assert_close(dense(ours), torch.cat(rows), rtol=1e-10, atol=1e-12)
    theirs = curvlinops.HessianLinearOperator(model, loss_func, params, [batch], block_sizes=sizes)
    torch.testing.assert_close(dense(ours), dense(theirs), rtol=1e-10, atol=1e-12)


def test_that_num_data_divides_as_in_curvlinops() -> None:
    model = network()
    params, pieces = list(model.parameters()), batches(examples(), 7, 5)
    ours = RiemannianHessian(model, nn.MSELoss(), params, pieces, num_data=100)
    theirs = curvlinops.HessianLinearOperator(model, nn.MSELoss(), params, pieces, num_data=100)
    torch.testing.assert_close(dense(ours), dense(theirs), rtol=1e-10, atol=1e-12)
    whole = RiemannianHessian(model, nn.MSELoss(), params, pieces)
    torch.testing.assert_close(dense(ours), dense(whole) * 12 / 100, rtol=1e-10, atol=1e-12)
    norms = [gradient_norm(model, nn.MSELoss(), params, pieces, num_data=n) for n in (None, 100)]
    assert norms[1] == pytest.approx(norms[0] * 12 / 100, rel=1e-10)


class Keyed(nn.Module):
    """Model that takes its inputs from a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        return self.net(inputs["x"])


def test_that_inputs_may_be_dicts_when_their_examples_are_counted() -> None:
    model = Keyed()
    pieces = [({"x": x}, y) for x, y in batches(examples(), 7, 5)]
    expected = dense_hessian(model.net, nn.MSELoss(), examples())[1]
    options = {"batch_size_fn": lambda inputs: len(inputs["x"])}
    ours = RiemannianHessian(model, nn.MSELoss(), model.parameters(), pieces, **options)
    torch.testing.assert_close(dense(ours), expected, rtol=1e-10, atol=1e-12)
    # by default the targets are counted
    torch.testing.assert_close(
        dense(RiemannianHessian(model, nn.MSELoss(), model.parameters(), pieces)), expected, rtol=1e-10, atol=1e-12
    )
    # a different number of examples is used
    options = {"batch_size_fn": lambda inputs: 1}
    halves = [dense_hessian(model.net, nn.MSELoss(), piece)[1] for piece in batches(examples(), 7, 5)]
    ours = RiemannianHessian(model, nn.MSELoss(), model.parameters(), pieces, **options)
    torch.testing.assert_close(dense(ours), (halves[0] + halves[1]) / 2, rtol=1e-10, atol=1e-12)


def test_that_a_subset_of_parameters_in_any_order_may_be_asked_for() -> None:
    model = network()
    blocks, _ = dense_hessian(model, nn.MSELoss(), examples())
    params = list(model.parameters())
    ours = RiemannianHessian(model, nn.MSELoss(), [params[3], params[0]], examples())
    expected = torch.cat([torch.cat([blocks[3][3], blocks[3][0]], 1), torch.cat([blocks[0][3], blocks[0][0]], 1)])
    torch.testing.assert_close(dense(ours), expected, rtol=1e-10, atol=1e-12)
    assert list(layer_traces(ours, 2)) == ["2.bias", "0.weight"]


def test_that_the_gradient_norm_is_that_of_autograd() -> None:
    model = network()
    loss, values = functional(model, nn.MSELoss(), examples())
    gradients = torch.autograd.functional.jacobian(loss, values)
    expected = torch.cat([g.flatten() for g in gradients]).norm()
    for data in (examples(), batches(examples(), 7, 5), list(examples())):  # a batch that is a list, as loaders yield
        assert gradient_norm(model, nn.MSELoss(), model.parameters(), data) == pytest.approx(float(expected))


def test_that_a_loss_linear_in_some_parameters_or_in_all_has_its_hessian() -> None:
    model = nn.Linear(4, 3).double()
    x, y = examples()
    zero = RiemannianHessian(model, lambda outputs, targets: (outputs * targets).sum(), model.parameters(), (x, y))
    assert torch.equal(dense(zero), torch.zeros(15, 15, dtype=torch.float64))

    def partly(outputs: Tensor, targets: Tensor) -> Tensor:  # the bias has a constant gradient
        return model.weight.square().sum() / 2 + model.bias.sum() + 0 * outputs.sum()

    part = RiemannianHessian(model, partly, model.parameters(), (x, y))
    torch.testing.assert_close(dense(part), torch.diag(torch.tensor([1.0] * 12 + [0.0] * 3, dtype=torch.float64)))


def test_that_complex_parameters_count_as_pairs_of_real_ones() -> None:
    z = nn.Parameter(normal(3, dtype=torch.complex128))
    x = normal(5, 3)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.abs() ** 4 + outputs.real**3).mean()

    ours = RiemannianHessian(lambda inputs: inputs.to(z.dtype) @ z, loss, [z], (x, x))
    assert ours.shape == (6, 6)

    def of_pairs(pairs: Tensor) -> Tensor:
        return loss(x.to(z.dtype) @ torch.view_as_complex(pairs.reshape(3, 2)), x)

    expected = torch.autograd.functional.hessian(of_pairs, torch.view_as_real(z.detach()).flatten())
    torch.testing.assert_close(dense(ours), expected, rtol=1e-10, atol=1e-12)
    assert gradient_norm(lambda inputs: inputs.to(z.dtype) @ z, loss, [z], (x, x)) == pytest.approx(
        float(torch.autograd.functional.jacobian(of_pairs, torch.view_as_real(z.detach()).flatten()).norm())
    )
