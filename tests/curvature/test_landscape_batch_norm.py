"""That landscapes normalise batches by the statistics that are asked for."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from rsam.curvature import gradient_norm, landscape
from rsam.curvature.landscape import line
from tests.curvature.problems import DOUBLE, batches, labelled, normal

CE = nn.CrossEntropyLoss()


def normed() -> nn.Sequential:
    """A network whose statistics are those of other data, in training mode."""
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    model(3 * normal(20, 4, seed=9) + 1)
    return model


def by_hand(model: nn.Sequential, batch: Any, mean: Tensor, var: Tensor) -> float:
    hidden = (model[0](batch[0]) - mean) / (var + 1e-5).sqrt()
    return float(CE(model[3](torch.tanh(hidden)), batch[1]))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("as_function", [False, True], ids=["module", "function"])
def test_that_batch_norm_uses_the_statistics_that_are_asked_for(training: bool, as_function: bool) -> None:
    model, batch = normed().train(training), labelled(12)
    called = (lambda inputs: model(inputs)) if as_function else model
    (d,) = landscape.random_directions(model.parameters(), 1)
    d[2:4] = [torch.zeros(6, dtype=DOUBLE)] * 2  # scale and shift of batch norm stay 1 and 0
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for p, v in zip(moved.parameters(), d, strict=True):
            p.add_(v)
        hidden, pieces = moved[0](batch[0]), batches(batch, 6, 6)
        parts = hidden.split(6)
        means, variances = ([getattr(h, what)(0) for h in parts] for what in ("mean", "var"))
        # biased in a batch; running statistics are averages over batches of unbiased ones
        expected = {
            "eval": by_hand(moved, batch, model[1].running_mean, model[1].running_var),
            "recompute": by_hand(moved, batch, sum(means) / 2, sum(variances) / 2),
            "batch": np.mean([by_hand(moved, b, h.mean(0), h.var(0, correction=0))
                              for b, h in zip(pieces, parts, strict=True)]),
        }  # fmt: skip
    for how, loss in expected.items():
        found = line(called, CE, model.parameters(), pieces, d, extent=(0, 1), steps=2, batch_norm=how)  # type: ignore[arg-type]
        assert found.loss[1] == pytest.approx(loss, rel=1e-10), how
    assert len(set(np.round(list(expected.values()), 6))) == 3


@pytest.mark.parametrize("how", ["eval", "batch"])
def test_that_the_gradient_direction_is_the_steepest_with_these_statistics(how: Any) -> None:
    model = normed().train(how == "eval")  # in the other mode
    case = CE, list(model.parameters()), labelled()
    found = line(model, *case, "gradient", steps=3, gradients=True, batch_norm=how)
    norm = gradient_norm(model.train(how == "batch"), *case)
    assert found.measures["slope"][1] == pytest.approx(norm, rel=1e-9)


def test_that_gradients_are_refused_where_statistics_move_along_the_line() -> None:
    """Before, the slope was not the derivative of the loss."""
    model, other = normed(), normed()
    case = CE, list(model.parameters()), labelled()
    for options in ({"batch_norm": "recompute"}, {"other": other}):
        with pytest.raises(ValueError, match="gradients: the running statistics of batch norm change along this line"):
            line(model, *case, steps=3, gradients=True, **options)  # type: ignore[arg-type]
    # along the line of these, the statistics do not move
    for options in ({"batch_norm": "batch", "other": other}, {"other": model}, {"batch_norm": "eval"}):
        assert "slope" in line(model, *case, steps=3, gradients=True, **options).measures  # type: ignore[arg-type]
    plain = nn.Linear(4, 3).double()
    found = line(plain, CE, plain.parameters(), labelled(), steps=3, gradients=True, batch_norm="recompute")
    assert "slope" in found.measures


def test_that_recomputed_statistics_are_those_of_torch() -> None:
    model = normed().eval()
    loader = DataLoader(TensorDataset(*labelled(12)), batch_size=5)
    found = line(model, CE, model.parameters(), loader, batch_norm="recompute", steps=3)
    updated = copy.deepcopy(model)
    torch.optim.swa_utils.update_bn([(x,) for x, _ in loader], updated)
    assert found.loss[1] == pytest.approx(CE(updated(labelled(12)[0]), labelled(12)[1]).item(), rel=1e-12)


def test_that_both_ends_between_networks_with_batch_norm_are_theirs() -> None:
    model, batch = normed(), labelled()
    torch.manual_seed(1)
    other = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    other(normal(20, 4, seed=2))
    found = line(model, CE, model.parameters(), batch, other=other, extent=(-0.5, 1.5), steps=5)
    losses = [CE(copy.deepcopy(m).eval()(batch[0]), batch[1]).item() for m in (model, other)]
    np.testing.assert_allclose(found.loss[[1, 3]], losses, rtol=1e-12)
    middle = copy.deepcopy(model).eval()
    averaged = {name: (a + b) / 2 for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(),
                                                         strict=True)}  # fmt: skip
    middle.load_state_dict(averaged)
    assert found.loss[2] == pytest.approx(CE(middle(batch[0]), batch[1]).item(), rel=1e-12)
    with pytest.raises(ValueError, match=r"other has no '1\.running_mean'"):
        line(model, CE, model.parameters(), batch, other=dict(other.named_parameters()))
    with pytest.raises(ValueError, match="model_func is no module"):
        line(lambda x: model(x), CE, model.named_parameters(), batch, other=other)
