"""Read, restore and seed the state of random generators: torch's global ones, and those that data draw from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["keeping_sources", "random_state", "seed_random_state", "set_random_state"]


def random_state() -> list[Tensor]:
    """Return the state of torch's global random generators, of the CPU and of an accelerator in use."""
    device = _accelerator()
    return [torch.get_rng_state(), *(device.get_rng_state_all() if device else [])]


def set_random_state(states: list[Tensor]) -> None:
    """Restore what :func:`random_state` returned."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        _accelerator().set_rng_state_all(states[1:])


def seed_random_state(seed: int) -> None:
    """Seed the generators whose state :func:`random_state` returns, and no others.

    Unlike :func:`torch.manual_seed`, which leaves a seed for an accelerator that is not in use yet, in the place of the
    user's.
    """
    torch.default_generator.manual_seed(seed)
    device = _accelerator()
    if device:
        device.manual_seed_all(seed)


@contextmanager
def keeping_sources(data: Any) -> Iterator[None]:
    """Keep what a pass over data draws from: the generators of a loader and its sampler, Python's and NumPy's."""
    sources = [getattr(holder, "generator", None) for holder in (data, getattr(data, "sampler", None))]
    generators = [(g, g.get_state()) for g in sources if isinstance(g, torch.Generator)]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  (what augmentations draw from)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for generator, state in generators:
            generator.set_state(state)


def _accelerator() -> Any:
    """Return torch's module of the accelerator in use, or None; asking initialises nothing."""
    return next((device for device in (torch.cuda, torch.xpu) if device.is_initialized()), None)
