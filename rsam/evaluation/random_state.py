"""Read, restore and seed random generators: global ones, and those that loaders draw from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rsam.evaluation.parameters import as_integer

__all__ = ["RandomState", "keeping_sources", "own_generator", "random_state", "seed_random_state", "set_random_state"]

# A script that calls torch.manual_seed(0) draws its weights and data from the stream of seed 0. Probes or dropout masks
# from the same stream would be correlated with them, and with each other. torch's generator on the CPU takes the last
# 32 bits of a seed only.
_OF_EVALUATIONS, _OF_PROBES = 0x3C6EF372, 0x9E3779B9


class RandomState(NamedTuple):
    """States of the global generators of torch (of the CPU, and of an accelerator in use), Python and NumPy."""

    torch: list[Tensor]
    python: Any
    numpy: Any


def random_state() -> RandomState:
    """Return the states of the global random generators."""
    device = _accelerator()
    of_torch = [torch.get_rng_state(), *(device.get_rng_state_all() if device else [])]
    return RandomState(of_torch, random.getstate(), np.random.get_state())  # noqa: NPY002  (what mixup draws from)


def set_random_state(state: RandomState) -> None:
    """Restore the states that :func:`random_state` returned."""
    torch.set_rng_state(state.torch[0])
    if len(state.torch) > 1:
        _accelerator().set_rng_state_all(state.torch[1:])
    random.setstate(state.python)
    np.random.set_state(state.numpy)  # noqa: NPY002


def seed_random_state() -> None:
    """Seed torch's generators whose state :func:`random_state` returns, and no others, alike in every evaluation.

    :func:`torch.manual_seed` would also seed an accelerator that is not in use yet, and overwrite the user's seed for
    it.
    """
    torch.default_generator.manual_seed(_OF_EVALUATIONS)
    device = _accelerator()
    if device:
        device.manual_seed_all(_OF_EVALUATIONS)


def own_generator(seed: int, device: torch.device) -> torch.Generator:
    """Return a new generator whose numbers are independent of those that follow ``torch.manual_seed(seed)``."""
    # in integers of Python, which do not overflow as those of NumPy
    return torch.Generator(device).manual_seed((as_integer("seed", seed) + _OF_PROBES) % 2**64)


@contextmanager
def keeping_sources(data: Any) -> Iterator[None]:
    """Restore at the end the generators of a loader and its samplers, beside the global ones."""
    by_batches = getattr(data, "batch_sampler", None)
    holders = (data, getattr(data, "sampler", None), by_batches, getattr(by_batches, "sampler", None))
    sources = [getattr(holder, "generator", None) for holder in holders]
    generators = [(g, g.get_state()) for g in sources if isinstance(g, torch.Generator)]
    try:
        yield
    finally:
        for generator, state in generators:
            generator.set_state(state)


def _accelerator() -> Any:
    """Return torch's module of the accelerator in use, or None, without initialising any."""
    return next((device for device in (torch.cuda, torch.xpu) if device.is_initialized()), None)
