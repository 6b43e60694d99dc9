"""Define penalties with random tangents, drawn from their own generators."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rsam import geometry
from rsam.evaluation.parameters import as_integer
from rsam.evaluation.random_state import own_generator
from rsam.losses.closure import Evaluations
from rsam.losses.differences import add, symmetric_sum, tangent_parts
from rsam.losses.penalty import Differences, Method, Params, Penalty

__all__ = ["Distribution", "RandomPenalty"]

Distribution = Literal["normal", "rademacher"]


class RandomPenalty(Penalty):
    """Penalty that is estimated with random probes. See :class:`~rsam.losses.HessianTrace` for the parameters.

    It does not use the global random state. ``state_dict`` holds the states of the generators, so that a resumed run
    draws the probes that the interrupted one would have drawn.
    """

    def __init__(
        self,
        params: Params,
        weight: float,
        method: Method,
        step: float | None,
        probes: int,
        distribution: Distribution,
        seed: int,
    ) -> None:
        super().__init__(params, weight, method, step)
        if distribution not in ("normal", "rademacher"):
            raise ValueError(f"distribution must be 'normal' or 'rademacher', got {distribution!r}")
        self.probes = as_integer("probes", probes, 1)
        self.distribution: Distribution = distribution
        self._seed = seed
        self._generators: dict[str, torch.Generator] = {}  # by device
        self._states: dict[str, Tensor] = {}  # loaded states of generators that are not made yet

    def generator(self, device: torch.device) -> torch.Generator:
        """Return the generator of a device.

        Parameters
        ----------
        device : torch.device
            Where the random numbers are needed.
        """
        name = str(device)
        if name not in self._generators:
            self._generators[name] = own_generator(self._seed, device)
        if name in self._states:
            self._generators[name].set_state(self._states.pop(name))
        return self._generators[name]

    def coordinates(self, space: geometry.Product) -> list[Tensor]:
        """Return the tangent coordinates of a new random probe, one tensor per parameter, on its device.

        Parameters
        ----------
        space : Product
            The parameters.
        """
        return space.random_coordinates(space.params, generator=self.generator, distribution=self.distribution)

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return the states of the generators, by device."""
        return {**{name: g.get_state() for name, g in self._generators.items()}, **self._states}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Load the states of the generators."""
        self._states = {name: s.cpu() for name, s in state.items()}

    def second_difference(
        self, loss: Tensor, gradient: list[Tensor], step: float, evaluate: Evaluations
    ) -> Differences:
        r"""Return the mean over probes of :math:`L(R_x(tv)) - 2 L(x) + L(R_x(-tv))`, and its gradient.

        Parameters
        ----------
        loss : Tensor
            The loss :math:`L(x)`.
        gradient : list of Tensor
            Its gradient, one tensor per parameter.
        step : float
            The length :math:`t`.
        evaluate : Evaluations
            The loss and its gradient elsewhere.
        """
        change = torch.zeros_like(loss)
        sums: list[Tensor] = []
        for _ in range(self.probes):
            (ahead, behind), both = symmetric_sum(gradient, self.coordinates(evaluate.space), step, evaluate)
            change = change + ((ahead - loss) + (behind - loss))  # each difference of close numbers is exact
            sums = add(sums, both) if sums else both
        covectors = tangent_parts(evaluate.space, add(sums, gradient, -2.0 * self.probes))
        return change / self.probes, covectors, 1 / self.probes
