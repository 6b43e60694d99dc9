"""That the random state covers the generators in use, and no others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsam.evaluation.random_state import own_generator, random_state, seed_random_state, set_random_state


def test_a_seed_reaches_no_generator_that_is_not_in_use(monkeypatch) -> None:
    queued = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "_lazy_call", lambda *args, **kwargs: queued.append(args))
    state = random_state()
    seed_random_state()
    first = torch.rand(3)
    assert queued == []
    set_random_state(state)
    seed_random_state()
    assert torch.equal(torch.rand(3), first)
    set_random_state(state)
    assert all(torch.equal(a, b) for a, b in zip(random_state().torch, state.torch, strict=True))


def test_a_seed_reaches_the_accelerator_in_use(monkeypatch) -> None:
    seeds = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    seed_random_state()
    assert seeds == [torch.initial_seed()]


@pytest.mark.parametrize("seed", [np.int64(3), np.int32(3), torch.tensor(3)], ids=["int64", "int32", "tensor"])
def test_that_a_seed_may_be_any_integer(seed) -> None:
    cpu = torch.device("cpu")
    assert torch.equal(own_generator(seed, cpu).get_state(), own_generator(3, cpu).get_state())
