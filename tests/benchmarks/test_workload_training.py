"""That a run trains what it describes, reproducibly, and reports divergence."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import rsam
from benchmarks.methods import METHODS
from benchmarks.methods.riemannian import RIEMANNIAN
from benchmarks.run import Run
from benchmarks.runs import training
from benchmarks.runs.training import fit, prepare, train
from benchmarks.workloads.hyperbolic import Embedded, FewLabels
from benchmarks.workloads.hyperbolic.embedding import BURN_IN, BURN_IN_RATE
from benchmarks.workloads.problem import Problem, cosine
from benchmarks.workloads.recurrent import Sequences
from benchmarks.workloads.scoring import accuracy
from benchmarks.workloads.spd import HandSigns

RUNS = {
    "mammals": Run(Embedded("mammals", "lorentz", 2), "rsam", 0, 10.0, 1, rho=0.02),
    "few_labels": Run(FewLabels(4), "rsam", 0, 0.01, 2, rho=0.02),
    "copying": Run(Sequences("copying", "canonical", 8), "rsam_adam", 0, 0.003, 1, rho=0.02),
    "adding": Run(Sequences("adding", "stiefel", 8), "rsam_adam", 0, 0.003, 1, rho=0.02),
    "rows": Run(Sequences("rows", "stiefel", 8), "projected_sam", 0, 0.003, 1, rho=0.02),
    "emg": Run(HandSigns("canonical", 3), "projected_sam_adam", 0, 0.003, 1, rho=0.02),
}
MEASURES = ("gradient_norm", "trace", "top_eigenvalue")


@pytest.mark.parametrize("task", RUNS)
def test_that_a_run_gives_the_same_row_again(task) -> None:
    run = replace(RUNS[task], measures=MEASURES)
    one, other = train(run), train(run)
    assert replace(one, seconds=0.0, seconds_per_step=0.0, megabytes=0.0) == replace(
        other, seconds=0.0, seconds_per_step=0.0, megabytes=0.0
    )
    assert not one.diverged
    assert {name: len(curve) for name, curve in one.curves.items()} == {"loss": run.epochs}
    assert one.violation < 1
    assert set(one.measures) == {"gradient_norm", "trace", "trace_error", "top_eigenvalue"}
    assert all(map(math.isfinite, one.measures.values()))
    assert one.gradients % 2 == 0  # two per step


@pytest.mark.parametrize("task", RUNS)
def test_that_methods_of_a_seed_begin_alike_and_see_the_same_batches(task) -> None:
    problems = [prepare(replace(RUNS[task], method=method, lr=0.5, rho=0.1)) for method in ("rsam", "riemannian_adam")]
    for one, other in zip(*(p.model.parameters() for p in problems), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(*(p.batches(1) for p in problems), strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
    other_seed = prepare(replace(RUNS[task], seed=1))
    pairs = zip(problems[0].model.parameters(), other_seed.model.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("method", [method.name for method in RIEMANNIAN])
def test_that_training_is_the_optimizer_on_the_batches(method) -> None:
    run = replace(RUNS["emg"], method=method, epochs=2)
    trained, by_hand = prepare(run), prepare(run)
    fit(run, trained, 0.0)
    optimizer = METHODS[method].build(by_hand.model, run)
    done = 0
    for epoch in range(2):
        for inputs, targets in by_hand.batches(epoch):
            for group in optimizer.param_groups:
                group["lr"] = run.lr * cosine(done / 40)  # twenty batches of 60 per epoch
            done += 1

            def closure(inputs=inputs, targets=targets):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(by_hand.model(inputs), targets)
                loss.backward()
                return loss

            optimizer.step(closure)
    for one, other in zip(trained.model.parameters(), by_hand.model.parameters(), strict=True):
        # the same products, but learning rates are rounded differently
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def problem_of(loss: nn.Module, schedule=lambda progress: 1.0) -> Problem:
    model = nn.Linear(1, 1)
    batch = torch.ones(3, 1), torch.ones(3, 1)
    return Problem(model, loss, lambda epoch: [batch] * 4, 4, lambda: {"accuracy": 1.0}, batch, schedule=schedule)


class Broken(nn.Module):
    """Loss that at a given call is infinite or raises."""

    def __init__(self, at: int, error: Exception | None = None) -> None:
        super().__init__()
        self.left = at
        self.error = error

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left == 0 and self.error is not None:
            raise self.error
        return (outputs - targets).square().mean() * (torch.inf if self.left == 0 else 1)


RUN = Run(None, "riemannian_sgd", 0, 0.01, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [None, torch.linalg.LinAlgError("singular"), rsam.NotFinite("gradient")])
def test_that_a_run_that_diverges_ends_with_the_scores_it_had(error) -> None:
    row = fit(replace(RUN, measures=MEASURES), problem_of(Broken(6, error)), 0.0)
    assert row.diverged
    assert row.scores == {"accuracy": 1.0} and row.measures == {}
    assert row.gradients == 5  # the sixth loss is not differentiated
    assert len(row.curves["loss"]) == 1


def test_that_a_run_whose_scores_cannot_be_computed_has_diverged() -> None:
    def scores() -> dict[str, float]:
        raise torch.linalg.LinAlgError("the centre is not positive definite")

    row = fit(replace(RUN, measures=MEASURES), replace(problem_of(nn.MSELoss()), scores=scores), 0.0)
    assert row.diverged
    assert row.scores == {} and row.measures == {}
    assert len(row.curves["loss"]) == 3


class Steep(nn.Module):
    """Finite loss whose gradient, or the gradient's norm, is not finite."""

    def __init__(self, overflows: bool) -> None:
        super().__init__()
        self.overflows = overflows

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        nought = outputs.sum() - outputs.sum().detach()
        # with three outputs each number of the gradient is 6/7 of the largest float
        return nought * (torch.finfo(torch.float32).max / 3.5) if self.overflows else nought.sqrt()


@pytest.mark.parametrize("overflows", [False, True])
@pytest.mark.parametrize("method", ["rsam", "rsam_adam"])
def test_that_a_gradient_that_rsam_refuses_is_divergence(method, overflows) -> None:
    assert fit(replace(RUN, method=method, rho=0.1), problem_of(Steep(overflows)), 0.0).diverged


@pytest.mark.parametrize("said", ["out of memory", "a gradient of which is not finite"])
def test_that_other_errors_are_raised(said) -> None:
    with pytest.raises(RuntimeError, match=said):
        fit(RUN, problem_of(Broken(6, RuntimeError(said))), 0.0)


def test_that_the_learning_rate_follows_the_schedule(monkeypatch) -> None:
    rates = []

    def step(optimizer, closure) -> float:
        rates.append(optimizer.param_groups[0]["lr"])
        return 0.0

    monkeypatch.setattr(training, "take_step", step)
    fit(RUN, problem_of(nn.MSELoss(), lambda progress: 1 - progress), 0.0)
    assert rates == pytest.approx([0.01 * (1 - i / 12) for i in range(12)])


def test_that_embeddings_burn_in_and_then_fall() -> None:
    schedule = prepare(RUNS["mammals"]).schedule
    assert schedule(0) == schedule(BURN_IN - 1e-9) == BURN_IN_RATE
    assert schedule(BURN_IN) == schedule(0.5) == 1
    assert schedule(0.75) == pytest.approx(0.5)
    assert cosine(0) == 1 and cosine(0.5) == pytest.approx(0.5) and cosine(1) == pytest.approx(0)


def test_that_curvature_is_that_of_the_training_loss_in_the_metric() -> None:
    run = replace(RUNS["emg"], measures=MEASURES)
    problem = prepare(run)
    row = fit(run, problem, 0.0)
    params = list(problem.model.parameters())
    hessian = rsam.curvature.RiemannianHessian(problem.model, problem.loss, params, problem.measured)
    exact = float(rsam.curvature.trace(hessian, method="exact"))
    # the standard error of a mean over twenty probes; it is off by five of them once in two million times
    assert row.measures["trace"] == pytest.approx(exact, abs=5 * row.measures["trace_error"])
    inputs = torch.cat([x for x, _ in problem.batches(0)])
    known = {x.numpy().tobytes() for x in inputs}
    assert all(x.numpy().tobytes() in known for x in problem.measured[0])


def test_that_accuracy_is_that_of_the_largest_logit_and_no_number_is_wrong() -> None:
    logits = torch.tensor([[1.0, 2.0], [2.0, 1.0], [torch.nan, 1.0], [3.0, 2.0]])
    assert accuracy(logits, torch.tensor([1, 1, 0, 0])) == 0.5
    assert accuracy(logits[:1], torch.tensor([1])) == 1.0
