"""That closures and layers which would make a penalty wrong are refused, with what to do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from rsam import NotFinite
from rsam.losses import FisherTrace
from tests.losses.problems import PENALTIES, closure_for, on

DIFFERENCES = [name for name in PENALTIES if "difference" in name or name == "sharpness"]


@pytest.mark.parametrize("method", ["exact", "difference"])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda loss: loss.item(), "scalar loss, got float"),
        (lambda loss: loss.expand(2), r"scalar loss, got shape \(2,\)"),
        (lambda loss: loss.detach(), "without a graph"),  # its gradient would be missing
    ],
)
def test_that_the_loss_beside_the_outputs_is_checked(method, change, says) -> None:
    problem = on("plain")
    penalty = FisherTrace(problem.points, method=method)

    def closure():
        loss, outputs = problem.both()
        return change(loss), outputs

    with pytest.raises(ValueError, match=f"FisherTrace .*{says}"):
        penalty.objective(closure)


@pytest.mark.parametrize("method", ["exact", "difference"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_that_a_loss_that_is_not_finite_beside_finite_outputs_is_refused(bad, method) -> None:
    problem = on("plain")
    penalty = FisherTrace(problem.points, method=method)

    def closure():
        loss, outputs = problem.both()
        return loss + bad, outputs

    with pytest.raises(NotFinite, match=r"FisherTrace.* the loss"):
        penalty.objective(closure)


@pytest.mark.parametrize("name", PENALTIES)
def test_reentrant_checkpoints_get_the_remedy(name) -> None:
    problem = on("plain")
    penalty = PENALTIES[name](problem.points)
    closure = closure_for(penalty, problem)
    with pytest.raises(
        ValueError, match=r"use_reentrant=True has no derivatives for penalties; .* use_reentrant=False"
    ):
        penalty(lambda: torch.utils.checkpoint.checkpoint(lambda _: closure(), problem.points[0], use_reentrant=True))


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_lazy_parameter_is_named(name) -> None:
    model = nn.LazyLinear(3)
    penalty = PENALTIES[name](model.named_parameters())
    with pytest.raises(ValueError, match="parameter 'weight' has no shape yet: call the model once"):
        penalty(lambda: model(torch.ones(2, 4)))


@pytest.mark.parametrize("name", PENALTIES)
def test_householder_reflections_are_not_moved_at_random(name) -> None:
    """Their layer rounds a diagonal of ones to integers: 0.999 gives 0."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3)).double()
    nn.utils.parametrizations.orthogonal(model[0])  # the default of matrices that are not square
    x, y = torch.randn(5, 4).double(), torch.arange(5) % 3
    penalty = PENALTIES[name](model.named_parameters())

    def closure():
        outputs = model(x)
        return outputs if isinstance(penalty, FisherTrace) else nn.functional.cross_entropy(outputs, y)

    if name not in ("hessian_trace_difference", "sharpness"):
        penalty(closure).backward()
        return
    with pytest.raises(ValueError, match=r"'0\.parametrizations\.weight\.original' .* orthogonal_map='matrix_exp'"):
        penalty(closure)
    others = [(n, p) for n, p in model.named_parameters() if not n.endswith("original")]
    PENALTIES[name](others)(closure).backward()


class Impure:
    """Closures that do not give the same result again."""

    def __init__(self, kind: str) -> None:
        self.kind, self.problem, self.state = kind, on("plain"), 0.0
        self.torch, self.numpy = torch.Generator().manual_seed(0), np.random.default_rng(0)
        self.batches = iter(torch.randn(9, 2, 3).double())

    def outputs(self) -> Tensor:
        self.state += 0.1
        size = {"state": 1.0, "torch": torch.rand((), generator=self.torch), "numpy": self.numpy.random()}
        noise = next(self.batches) if self.kind == "batches" else size[self.kind] * self.state
        return self.problem.outputs() * (1 + noise)

    def closure(self, penalty, objective: bool) -> Tensor | tuple[Tensor, Tensor]:
        outputs = self.outputs()
        loss = nn.functional.cross_entropy(outputs, self.problem.targets)
        if isinstance(penalty, FisherTrace):
            return (loss, outputs) if objective else outputs
        return loss


@pytest.mark.parametrize("objective", [True, False])
@pytest.mark.parametrize("kind", ["batches", "state", "torch", "numpy"])
@pytest.mark.parametrize("name", DIFFERENCES)
def test_differences_refuse_a_closure_that_does_not_give_the_same_result_again(name, kind, objective) -> None:
    impure = Impure(kind)
    penalty = PENALTIES[name](impure.problem.points)
    call = penalty.objective if objective else penalty
    with pytest.raises(RuntimeError, match=r"another result .* same batch .* generator of its own, and no state"):
        call(lambda: impure.closure(penalty, objective))
