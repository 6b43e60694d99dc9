"""That batches of a loader, however unequal, count as one batch of all their examples."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from rsam.curvature import (
    RiemannianGaussNewton,
    RiemannianHessian,
    fisher_trace,
    gradient_norm,
    landscape,
    sharpness,
    trace,
)
from tests.curvature.problems import Batch, batches, dense, examples, labelled, mixed_network, network, normal

WEIGHTS = torch.tensor([1.0, 4.0, 0.25], dtype=torch.float64)


def partly_ignored() -> Batch:
    x, y = labelled()
    y = torch.where(torch.tensor([0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0], dtype=torch.bool), 1, y)
    return x, torch.where(torch.arange(12) < 3, -100, y)


def probabilities() -> Batch:
    x, _ = labelled()
    return x, normal(12, 3, seed=9).softmax(1)


def of_bytes() -> Batch:
    x, y = labelled()
    return x, y.byte()


CASES = [
    pytest.param(nn.MSELoss(), examples, id="MSE"),
    pytest.param(nn.MSELoss(reduction="sum"), examples, id="MSE sum"),
    pytest.param(nn.CrossEntropyLoss(), labelled, id="CE"),
    pytest.param(nn.CrossEntropyLoss(WEIGHTS), labelled, id="CE weights"),
    pytest.param(nn.CrossEntropyLoss(WEIGHTS), of_bytes, id="CE weights bytes"),
    pytest.param(nn.CrossEntropyLoss(), partly_ignored, id="CE ignoring"),
    pytest.param(nn.CrossEntropyLoss(WEIGHTS, label_smoothing=0.1), partly_ignored, id="CE weights ignoring smoothed"),
    pytest.param(nn.CrossEntropyLoss(ignore_index=1), labelled, id="CE ignoring class 1"),
    pytest.param(nn.CrossEntropyLoss(WEIGHTS, reduction="sum"), partly_ignored, id="CE sum"),
    pytest.param(nn.CrossEntropyLoss(), probabilities, id="CE probabilities"),
    pytest.param(nn.NLLLoss(WEIGHTS), partly_ignored, id="NLL weights ignoring"),
    pytest.param(lambda f, y: (f - y).pow(4).mean(), examples, id="function"),
]
Data = Callable[[], Batch]
each_loss = pytest.mark.parametrize(("loss_func", "data"), CASES)


def measures(model: nn.Module, loss_func: Any, data: Any) -> dict[str, Tensor]:
    """Return all measures without a random part."""
    hessian = RiemannianHessian(model, loss_func, model.parameters(), data)
    return {
        "hessian": dense(hessian),
        "gauss_newton": RiemannianGaussNewton(model, loss_func, model.parameters(), data) @ normal(hessian.shape[0]),
        "gradient_norm": torch.tensor(gradient_norm(model, loss_func, model.parameters(), data)),
        "line": torch.from_numpy(landscape.line(model, loss_func, model.parameters(), data, "gradient", steps=3).loss),
        "worst": torch.tensor(float(sharpness(model, loss_func, model.parameters(), data, 0.3, steps=2, restarts=1))),
        "average": sharpness(model, loss_func, model.parameters(), data, 0.1, kind="average", probes=3).samples,
    }


@each_loss
def test_that_unequal_batches_count_as_one(loss_func: Any, data: Data) -> None:
    model = mixed_network()
    whole = measures(model, loss_func, data())
    loader = DataLoader(TensorDataset(*data()), batch_size=5)  # 5, 5 and 2
    for pieces in (batches(data(), 7, 4, 1), loader):
        parts = measures(model, loss_func, pieces)
        for name, expected in whole.items():
            torch.testing.assert_close(parts[name], expected, rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


def test_that_the_plain_mean_over_these_batches_would_be_wrong() -> None:
    """hessian-eigenthings takes that mean; the test before would pass with it if batches were alike."""
    model, loss_func = network(), nn.CrossEntropyLoss()
    for data in (labelled, partly_ignored):
        pieces = batches(data(), 7, 4, 1)
        right = dense(RiemannianHessian(model, loss_func, model.parameters(), pieces))
        single = [dense(RiemannianHessian(model, loss_func, model.parameters(), [piece])) for piece in pieces]
        assert float((sum(single) / 3 - right).norm()) > 0.1 * float(right.norm())
        # numbers of examples would be wrong too if some targets are ignored
        counted = sum(len(p[1]) * h for p, h in zip(pieces, single, strict=True)) / 12
        assert (float((counted - right).norm()) > 0.1 * float(right.norm())) == (data is partly_ignored)


def test_that_a_batch_whose_targets_are_all_ignored_counts_nothing() -> None:
    model, loss_func = network(), nn.CrossEntropyLoss()
    x, y = partly_ignored()
    pieces = batches((x, y), 3, 9)  # the mean over the first piece is nan
    for name, value in measures(model, loss_func, pieces).items():
        torch.testing.assert_close(value, measures(model, loss_func, (x, y))[name], rtol=1e-9, atol=1e-11)
    value = sharpness(model, loss_func, model.parameters(), (x, y), micro_batch=3)
    assert len(value.samples) == 3
    with pytest.raises(ValueError, match="no example counts"):
        gradient_norm(model, loss_func, model.parameters(), pieces[:1])


# -- experts, tasks and heads -----------------------------------------------------------------------------------------


class Routed(nn.Module):
    """Network of a common layer and two further layers, of which each example uses one."""

    def __init__(self) -> None:
        super().__init__()
        self.common, self.experts = nn.Linear(4, 4).double(), nn.ModuleList([network(1), network(2)])

    def forward(self, x: Tensor) -> Tensor:
        hidden = x + self.common(x).tanh()
        one, other = (expert(hidden) for expert in self.experts)
        return torch.where(x[:, :1] > 0, one, other)


class Switched(Routed):
    """The same network for batches whose examples all use one of the layers; the other is not called."""

    def forward(self, x: Tensor) -> Tensor:
        return self.experts[int(x[0, 0] <= 0)](x + self.common(x).tanh())


def by_expert(batch: Batch) -> list[Batch]:
    first = batch[0][:, 0] > 0
    return [tuple(part[chosen] for part in batch) for chosen in (first, ~first)]


def test_that_no_class_of_bytes_is_taken_for_an_ignored_one() -> None:
    """In bytes 156 is equal to the -100 that is ignored."""
    model, x = nn.Linear(4, 160).double(), examples()[0]
    y = torch.full((len(x),), 156)
    bytewise, wide = (
        fisher_trace(model, nn.CrossEntropyLoss(), model.parameters(), (x, targets), 2).samples
        for targets in (y.byte(), y)
    )
    assert torch.equal(bytewise, wide)


@pytest.mark.parametrize("frozen", [False, True], ids=["with all", "with one expert only"])
def test_that_a_batch_may_miss_parameters(frozen: bool) -> None:
    routed, switched = Routed(), Switched()
    switched.load_state_dict(routed.state_dict())
    for model in (routed, switched):
        if frozen:  # a batch of the other expert has no graph
            model.requires_grad_(False)
            model.experts[1].requires_grad_(True)
    pieces = by_expert(labelled())
    assert [len(y) for _, y in pieces] == [3, 9]
    loss_func = nn.CrossEntropyLoss()
    expected = measures(routed, loss_func, labelled())
    for name, value in measures(switched, loss_func, pieces).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")
    blocks = [1] * sum(p.requires_grad for p in routed.parameters())
    for kind in (RiemannianHessian, RiemannianGaussNewton):
        ours, whole = (
            dense(kind(m, loss_func, m.parameters(), d, block_sizes=blocks))
            for m, d in ((switched, pieces), (routed, labelled()))
        )
        torch.testing.assert_close(ours, whole, rtol=1e-9, atol=1e-11)
    for sample in (lambda m: fisher_trace(m, loss_func, m.parameters(), pieces, 5),
                   lambda m: sharpness(m, loss_func, m.parameters(), pieces, micro_batch=3)):  # fmt: skip
        torch.testing.assert_close(sample(switched).samples, sample(routed).samples, rtol=1e-9, atol=1e-11)


def test_that_a_parameter_that_no_piece_depends_on_is_named() -> None:
    model = Switched()
    model.register_parameter("unused", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    with pytest.raises(ValueError, match=r"does not depend on unused \(shape \(2,\), Euclidean\); leave it out"):
        sharpness(model, nn.CrossEntropyLoss(), model.parameters(), by_expert(labelled()), micro_batch=3)


def test_that_targets_tell_the_number_of_examples_where_inputs_have_it_elsewhere() -> None:
    class Transposed(nn.Module):
        """Network with examples in the second dimension, as in recurrent layers."""

        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, inputs: Tensor) -> Tensor:
            return self.net(inputs.mT)

    model = Transposed()
    pieces = [(x.mT, y) for x, y in batches(examples(), 7, 5)]  # the first dimensions of inputs are equal
    ours = dense(RiemannianHessian(model, nn.MSELoss(), model.parameters(), pieces))
    expected = dense(RiemannianHessian(model.net, nn.MSELoss(), model.net.parameters(), examples()))
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


def test_that_targets_may_be_one_mapping_for_each_example() -> None:
    """As for detectors, whose images have different numbers of objects."""
    model = network()

    def loss_func(outputs: Tensor, targets: list[dict[str, Tensor]]) -> Tensor:
        return torch.stack([(f * t["boxes"]).sum() for f, t in zip(outputs, targets, strict=True)]).mean()

    x, _ = examples()
    targets = [{"boxes": normal(count, 3, seed=count)} for count in range(5, 17)]
    whole = gradient_norm(model, loss_func, model.parameters(), [(x, targets)])
    pieces = [(x[:7], targets[:7]), (x[7:], targets[7:])]
    assert gradient_norm(model, loss_func, model.parameters(), pieces) == pytest.approx(whole, rel=1e-12)


def of_told_sizes(data: Any) -> list[Tensor]:
    """Return measures that are linear in the risk; batches of 7 examples count as one, others as three."""
    model, sizes = network(), {"batch_size_fn": lambda inputs: 1 if len(inputs) == 7 else 3}
    case = model, nn.MSELoss(), list(model.parameters()), data
    return [
        torch.from_numpy(landscape.line(*case, steps=3, **sizes).loss),
        torch.from_numpy(landscape.plane(*case, steps=2, **sizes).loss),
        sharpness(*case, 0.1, kind="average", probes=3, **sizes).samples,
    ]


def test_that_examples_are_counted_as_told() -> None:
    one, other = batches(examples(), 7, 5)
    for both, first, second in zip(*map(of_told_sizes, ([one, other], [one], [other])), strict=True):
        torch.testing.assert_close(both, (first + 3 * second) / 4)
    model = nn.Linear(4, 1, bias=False).double()
    x = torch.linalg.qr(normal(4, 4)).Q * torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    pieces = batches((x, torch.zeros(4, 1)), 3, 1)  # orthogonal inputs, of which one probe is exact
    arguments = model, nn.MSELoss(), list(model.parameters()), pieces
    estimate = fisher_trace(*arguments, 1, batch_size_fn=lambda inputs: 1 if len(inputs) == 3 else 3)
    assert float(estimate) == pytest.approx((2 * (1 + 4 + 9) / 3 + 3 * 2 * 16) / 4, rel=1e-12)


def test_that_a_loader_that_shuffles_gives_one_operator() -> None:
    """The loader draws its order from the random state, which is the same in every pass."""
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    loader = DataLoader(TensorDataset(*examples()), batch_size=4, shuffle=True)
    hessian = RiemannianHessian(model, nn.MSELoss(), model.parameters(), loader)
    matrix = dense(hessian)
    assert torch.equal(dense(hessian), matrix)
    torch.testing.assert_close(matrix, matrix.mT, rtol=0, atol=1e-10)


#: Loaders whose order comes from a generator; of the last the data are whole batches.
ORDERS: dict[str, Callable[[TensorDataset, torch.Generator], DataLoader]] = {
    "loader": lambda data, source: DataLoader(data, 4, shuffle=True, generator=source),
    "sampler": lambda data, source: DataLoader(data, 4, sampler=RandomSampler(data, generator=source)),
    "sampler of batches": lambda data, source: DataLoader(
        data, batch_sampler=BatchSampler(RandomSampler(data, generator=source), 4, False)
    ),
    "sampler alone": lambda data, source: DataLoader(
        batches(data.tensors, 4, 4, 4), batch_size=None, sampler=RandomSampler(range(3), generator=source)
    ),
}


@pytest.mark.parametrize("order", ORDERS)
def test_that_a_loader_with_a_random_order_of_its_own_repeats_it(order: str) -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).double()
    generator = torch.Generator().manual_seed(0)
    loader = ORDERS[order](TensorDataset(*examples()), generator)
    before = generator.get_state()
    hessian = RiemannianHessian(model, nn.MSELoss(), model.parameters(), loader)
    z = torch.ones(hessian.shape[0], dtype=torch.float64)
    # under batch norm another order would give another operator
    torch.testing.assert_close(hessian @ z, hessian @ z, rtol=0, atol=0)
    assert torch.equal(generator.get_state(), before)


def test_that_augmentations_by_numpy_and_python_repeat_and_leave_their_generators_alone() -> None:
    class Augmented(TensorDataset):
        def __getitem__(self, i: int) -> tuple[Tensor, ...]:
            x, y = super().__getitem__(i)
            return x + np.random.randn() + random.random(), y  # noqa: NPY002

    model = network()
    loader = DataLoader(Augmented(*examples()), batch_size=4)
    states = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    arguments = (model, nn.MSELoss(), list(model.parameters()), loader)
    assert gradient_norm(*arguments) == gradient_norm(*arguments)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states  # noqa: NPY002


def test_that_a_loader_that_changes_from_pass_to_pass_is_found_out() -> None:
    class Moody:
        def __init__(self) -> None:
            self.passes = 0

        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            self.passes += 1
            x, y = examples()
            yield x * self.passes, y

    model = network()
    arguments = (model, nn.MSELoss(), list(model.parameters()), Moody())
    with pytest.raises(RuntimeError, match=r"two passes over data give different gradients of 0\.weight"):
        RiemannianHessian(*arguments)
    assert float(trace(RiemannianHessian(*arguments, check_deterministic=False), 2)) != 0
    # a rise is a difference of two passes
    for options in ({}, {"kind": "average", "probes": 2}):
        with pytest.raises(RuntimeError, match=r"two passes over data give different losses, .*list\(loader\)"):
            sharpness(*arguments, 0.01, **options)
    assert float(sharpness(*arguments, 0.01, micro_batch=5)) > 0  # each piece is read once
    with pytest.raises(RuntimeError, match=r"two passes over data give different losses, .*list\(loader\)"):
        landscape.line(*arguments[:3], Moody(), steps=3, in_memory=False)
    assert np.isfinite(landscape.line(*arguments, steps=3).loss).all()  # read once


def test_that_the_two_passes_of_a_landscape_over_a_loader_keep_no_graphs() -> None:
    model, recorded = network(), []

    def watched(x: Tensor) -> Tensor:
        recorded.append(torch.is_grad_enabled())
        return model(x)

    loader = DataLoader(TensorDataset(*examples()), batch_size=4)
    landscape.line(watched, nn.MSELoss(), list(model.parameters()), loader, steps=3, in_memory=False)
    assert recorded == [False] * 15  # of 3 batches


@pytest.mark.parametrize(
    ("loss_func", "same"),
    [
        (nn.functional.cross_entropy, nn.CrossEntropyLoss()),
        (partial(nn.functional.cross_entropy, ignore_index=1), nn.CrossEntropyLoss(ignore_index=1)),
        (partial(nn.functional.cross_entropy, reduction="sum"), nn.CrossEntropyLoss(reduction="sum")),
        (nn.CrossEntropyLoss(reduction="sum").forward, nn.CrossEntropyLoss(reduction="sum")),
        (nn.CrossEntropyLoss(ignore_index=1).forward, nn.CrossEntropyLoss(ignore_index=1)),
    ],
)
def test_that_functions_are_weighted_as_their_modules(loss_func: Any, same: Any) -> None:
    model = network()
    x = examples()[0]
    y = torch.arange(len(x)) % 3
    y[:2] = same.ignore_index
    batches = [(x[:3], y[:3]), (x[3:], y[3:])]
    expected = gradient_norm(model, same, list(model.parameters()), (x, y))
    assert gradient_norm(model, loss_func, list(model.parameters()), batches) == pytest.approx(expected, rel=1e-12)


def test_that_a_loss_that_derives_from_another_is_not_taken_for_it() -> None:
    class Focal(nn.CrossEntropyLoss):
        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return super().forward(outputs, targets) ** 2

    model = network()
    x = examples()[0]
    with pytest.raises(ValueError, match="got Focal; for others take the trace of a RiemannianGaussNewton"):
        fisher_trace(model, Focal(), model.parameters(), (x, torch.arange(len(x)) % 3))
