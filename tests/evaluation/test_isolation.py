"""That evaluations leave buffers and random state alone."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

from rsam.evaluation import no_trace


class Counting(nn.Module):
    """Holds buffers in a child that it never calls, one of them under two names, and one that is None."""

    def __init__(self) -> None:
        super().__init__()
        self.child = nn.Module()
        self.child.register_buffer("calls", torch.zeros(()))
        self.register_buffer("same", self.child.calls)
        self.register_buffer("absent", None)
        self.norm = nn.BatchNorm1d(3)
        self.dropout = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        self.child.calls += 1
        assert self.same is self.child.calls
        return self.dropout(self.norm(x))


def snapshot(model: nn.Module) -> list[tuple[int, Tensor]]:
    return [(id(b), b.clone()) for b in model.buffers()]


def unchanged(model: nn.Module, before: list[tuple[int, Tensor]]) -> bool:
    return all(id(b) == i and torch.equal(b, value) for b, (i, value) in zip(model.buffers(), before, strict=True))


def test_buffers_and_random_state_are_as_before() -> None:
    model, x = Counting(), torch.randn(5, 3)
    before, state = snapshot(model), torch.get_rng_state()
    with no_trace():
        model(x)
        model(x)
        assert model.child.calls == 2  # within it they advance
    assert unchanged(model, before)
    assert torch.equal(torch.get_rng_state(), state)
    model(x)
    assert model.child.calls == 1


def test_after_an_exception_too() -> None:
    model, x = Counting(), torch.randn(5, 3)
    before = snapshot(model)
    with pytest.raises(KeyError), no_trace():
        model(x)
        raise KeyError
    assert unchanged(model, before)
    model(x)
    assert not unchanged(model, before)


def test_nested() -> None:
    model, x = Counting(), torch.randn(5, 3)
    before = snapshot(model)
    with no_trace():
        with no_trace():
            model(x)  # first seen inside
        model(x)
        state = torch.get_rng_state()
        with no_trace():
            model(x)
            assert model.child.calls == 2
        assert model.child.calls == 1
        assert torch.equal(torch.get_rng_state(), state)
    assert unchanged(model, before)


def test_graphs_from_before_and_from_within_survive() -> None:
    model, x = Counting(), torch.randn(5, 3)
    older = model(x).sum()
    with no_trace():
        inside = model.eval()(x).sum()  # needs the running statistics
        model.train()(x)
    older.backward()
    inside.backward()


def test_lazy_buffers_are_left_to_their_module() -> None:
    norm = nn.LazyBatchNorm1d()
    with no_trace():
        norm(torch.randn(5, 3))
    assert norm.running_mean.shape == (3,)


def test_modules_of_other_threads_are_left_alone() -> None:
    model, x = Counting(), torch.randn(5, 3)
    with no_trace():
        thread = threading.Thread(target=model, args=(x,))
        thread.start()
        thread.join()
    assert model.child.calls == 1
