"""That measurements have no side effects, even if they fail."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from rsam.margins import (
    distances,
    kv_margins,
    margins,
    path_norm,
    principal_components,
    spectral_norms,
    total_variations,
)
from tests.margins.problems import convolutional, images

MEASURES: dict[str, Callable[[nn.Module, Any], Any]] = {
    "margins": lambda m, d: margins(m, d, ["input", "2", "output"], nearest="any"),
    "total variations": lambda m, d: total_variations(m, d, ["input", "2"]),
    "distances": lambda m, d: distances(m, d, ["2"], steps=2),
    "kv": lambda m, d: kv_margins(m, d, ["2"]),
    "principal components": lambda m, d: principal_components(m, d, 2, "0"),
    "spectral norms": lambda m, d: spectral_norms(m, images()[0]),
    "path norm": lambda m, d: path_norm(m, images()[0]),
}


class Restless(nn.Module):
    """Layer that writes into its input and its buffer, and draws random numbers, in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
        return x.mul_(2.0)


def prepared() -> tuple[nn.Module, DataLoader, tuple[Tensor, Tensor]]:
    model = convolutional()
    model.append(Restless())
    model.insert(0, Restless())
    model.train()
    model[2].eval()  # a frozen batch norm
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    batch = images(12)
    return model, DataLoader(TensorDataset(*batch), 5, shuffle=True, generator=torch.Generator().manual_seed(3)), batch


def traces(model: nn.Module, loader: DataLoader, batch: tuple[Tensor, Tensor]) -> list[Any]:
    return [
        [t.clone() for t in (*model.parameters(), *model.buffers(), *batch)],
        [p.grad.clone() for p in model.parameters() if p.grad is not None],
        [id(b) for b in model.buffers()],
        [m.training for m in model.modules()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        [t.requires_grad for t in batch],
        torch.get_rng_state(),
        loader.generator.get_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        torch.is_grad_enabled(),
    ]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@pytest.mark.parametrize("name", [name for name in MEASURES if "norm" not in name])
def test_that_nothing_is_left_behind(name: str) -> None:
    model, loader, batch = prepared()
    before = traces(model, loader, batch)
    MEASURES[name](model, loader)
    assert same(traces(model, loader, batch), before)


class Merging(nn.Linear):
    """Layer that adds a low-rank part to its weight in evaluation mode, as LoRA's do."""

    def __init__(self) -> None:
        super().__init__(2 * 6 * 6, 3, dtype=torch.float64)
        self.part, self.merged = nn.Parameter(torch.ones(3, 1, dtype=torch.float64)), False

    def train(self, mode: bool = True) -> Merging:
        if self.merged == mode:  # integers, so that nothing is rounded
            self.weight.data += -self.part.data if mode else self.part.data
            self.merged = not mode
        return super().train(mode)


@pytest.mark.parametrize("training", [True, False])
def test_that_a_layer_that_changes_with_its_mode_is_changed_back(training: bool) -> None:
    layer = Merging()
    layer.weight.data = torch.arange(3 * 2 * 6 * 6, dtype=torch.float64).reshape(3, -1)
    model = nn.Sequential(nn.Flatten(), layer).train(training)
    model[0].train()
    before = layer.weight.clone()
    margins(model, images(12))
    assert torch.equal(layer.weight, before)
    assert [m.training for m in model.modules()] == [training, True, training] and layer.merged != training


class AlwaysDropping(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.3, training=True)


def test_that_random_layers_draw_the_same_numbers_in_every_call() -> None:
    model = nn.Sequential(AlwaysDropping(), *convolutional())
    first = margins(model, images(12))
    torch.rand(1)  # calls do not advance the random state, training does
    torch.testing.assert_close(margins(model, images(12)), first, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["spectral norms", "path norm"])
def test_that_norms_leave_nothing_behind(name: str) -> None:
    model, loader, batch = prepared()
    model = model[1:-1]  # without layers of other types
    before = traces(model, loader, batch)
    MEASURES[name](model, loader)
    assert same(traces(model, loader, batch), before)


@pytest.mark.parametrize("name", ["margins", "distances", "total variations"])
def test_that_nothing_is_left_behind_after_an_error(name: str) -> None:
    model, loader, batch = prepared()
    before = traces(model, loader, batch)
    broken = [*list(loader)[:1], (torch.randn(2, 9), torch.tensor([0, 1]))]
    before[7] = loader.generator.get_state()  # the test itself has read the loader
    before[6] = torch.get_rng_state()
    with pytest.raises(RuntimeError):
        MEASURES[name](model, broken)
    assert same(traces(model, loader, batch), before)


@pytest.mark.parametrize("name", [name for name in MEASURES if "norm" not in name])
def test_that_a_bar_appears_when_it_is_asked_for(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    functions = {"margins": margins, "total variations": total_variations, "distances": distances, "kv": kv_margins}
    model, batch = convolutional(), images(12)
    call = functions.get(name, lambda m, d, layers, **bar: principal_components(m, d, 2, *layers, **bar))
    call(model, batch, ["2"])
    assert capsys.readouterr() == ("", "")
    call(model, batch, ["2"], progressbar=True)
    out, err = capsys.readouterr()
    assert out == "" and (name if name != "kv" else "kV-margins") in err


def test_that_a_layer_that_writes_to_its_weights_is_refused() -> None:
    model = nn.Sequential(nn.Embedding(4, 3, max_norm=0.5), nn.Flatten(), nn.Linear(6, 2))
    tokens, labels = torch.tensor([[0, 1], [2, 3], [1, 2]]), torch.tensor([0, 1, 0])
    before = model[0].weight.clone()
    with pytest.raises(ValueError, match="Embedding '0' rescales"):
        margins(model, (tokens, labels), ["1"])
    assert torch.equal(model[0].weight, before)
