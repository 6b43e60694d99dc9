"""Random tangents of a penalty, from generators of its own."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rsam import geometry
from rsam.losses.differences import add, symmetric_sum, tangent_parts
from rsam.losses.evaluation import Evaluations
from rsam.losses.penalty import Differences, Method, Params, Penalty

__all__ = ["Distribution", "RandomPenalty"]

Distribution = Literal["normal", "rademacher"]


class RandomPenalty(Penalty):
    """A penalty estimated with random probes. See :class:`~rsam.losses.HessianTrace` for the parameters.

    The global random state is not used. ``state_dict`` holds the generators' states, so that a resumed run draws the
    probes that the interrupted one would have drawn.
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
        if not isinstance(probes, int) or probes < 1:
            raise ValueError(f"probes must be a positive integer, got {probes!r}")
        if distribution not in ("normal", "rademacher"):
            raise ValueError(f"distribution must be 'normal' or 'rademacher', got {distribution!r}")
        self.probes = probes
        self.distribution: Distribution = distribution
        self._seed = seed
        self._generators: dict[str, torch.Generator] = {}  # by device
        self._states: dict[str, Tensor] = {}  # loaded, of generators that are not made yet

    def generator(self, device: torch.device) -> torch.Generator:
        """The generator that draws on a device."""
        name = str(device)
        if name not in self._generators:
            self._generators[name] = torch.Generator(device).manual_seed(self._seed)
        if name in self._states:
            self._generators[name].set_state(self._states.pop(name))
        return self._generators[name]

    def coordinates(self, params: list[Tensor]) -> list[Tensor]:
        """Draw the tangent coordinates of one probe, all of a device at once."""
        shapes = geometry.coordinates_shape(params)
        drawn: dict[int, Tensor] = {}
        for device in dict.fromkeys(p.device for p in params):
            members = [i for i, p in enumerate(params) if p.device == device]
            sizes = [shapes[i].numel() for i in members]
            z = self.draw(torch.empty(sum(sizes), device=device), self.distribution)
            for i, piece in zip(members, z.split(sizes), strict=True):
                drawn[i] = piece.view(shapes[i]).to(params[i].real.dtype)
        return [drawn[i] for i in range(len(params))]

    def draw(self, z: Tensor, distribution: Distribution) -> Tensor:
        """Fill a tensor."""
        generator = self.generator(z.device)
        if distribution == "normal":
            return z.normal_(generator=generator)
        return z.random_(0, 2, generator=generator).mul_(2).sub_(1)  # several times faster than bernoulli_

    def get_extra_state(self) -> dict[str, Tensor]:
        """States of the generators, by device."""
        return {**{name: g.get_state() for name, g in self._generators.items()}, **self._states}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Continue where the saved penalty stopped."""
        self._states = {name: s.cpu() for name, s in state.items()}

    def second_difference(
        self, loss: Tensor, gradient: list[Tensor], step: float, evaluate: Evaluations
    ) -> Differences:
        r"""Mean over probes of :math:`L(R_x(tv)) - 2 L(x) + L(R_x(-tv))`, and its gradient."""
        params = evaluate.params
        change = torch.zeros_like(loss)
        sums: list[Tensor] = []
        for _ in range(self.probes):
            (ahead, behind), both = symmetric_sum(gradient, self.coordinates(params), step, evaluate)
            change = change + ((ahead - loss) + (behind - loss))  # each difference is exact, being of near numbers
            sums = add(sums, both) if sums else both
        covectors = tangent_parts(params, add(sums, gradient, -2.0 * self.probes))
        return change / self.probes, covectors, 1 / self.probes
