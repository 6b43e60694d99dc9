"""Define an Elman network with an orthogonal recurrent matrix."""

from __future__ import annotations

import geoopt
import torch
from torch import Tensor, nn

__all__ = ["OrthogonalRNN"]


class OrthogonalRNN(nn.Module):
    """Network ``h' = modReLU(W h + V x)`` with orthogonal ``W``, and a linear layer on the last states.

    The activation keeps signs and adds a bias to magnitudes (Arjovsky et al. 2016, eq. 8, for real numbers). At first
    the bias is 0 and the activation the identity, so that states keep their length over time.

    Parameters
    ----------
    inputs, width, outputs : int
        Numbers of inputs, hidden units and outputs of a step.
    manifold : geoopt.Manifold
        The Stiefel manifold of ``W``, which fixes its metric. On square matrices the canonical metric is half the
        Euclidean one, so that the two differ only in the units of rho and learning rate, and in the retraction.
    last : int
        Number of states at the end of the sequence that the linear layer reads.

    Attributes
    ----------
    recurrent : geoopt.ManifoldParameter
        The matrix ``W``, ``(width, width)``; at first plane rotations by random angles (Henaff et al. 2016).
    """

    def __init__(self, inputs: int, width: int, outputs: int, manifold: geoopt.Manifold, last: int = 1) -> None:
        super().__init__()
        self.last = last
        self.input = nn.Linear(inputs, width, bias=False)
        self.bias = nn.Parameter(torch.zeros(width))
        self.output = nn.Linear(width, outputs)
        angles = torch.empty(width // 2).uniform_(-torch.pi, torch.pi)
        turns = torch.stack([torch.stack([a.cos(), -a.sin(), a.sin(), a.cos()]).view(2, 2) for a in angles])
        fixed = [torch.ones(1, 1)] * (width % 2)
        self.recurrent = geoopt.ManifoldParameter(torch.block_diag(*turns, *fixed), manifold=manifold)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(n, steps, inputs)`` to outputs ``(n, outputs, last)``, without the last axis if ``last`` is 1."""
        driven = self.input(x)
        state = driven.new_zeros(len(x), self.bias.shape[0])
        states = []
        for drive in driven.unbind(1):  # the backward pass of indexing would fill a gradient of all steps at each step
            state = drive + state @ self.recurrent.mT
            state = state.detach().sign() * (state.abs() + self.bias).relu()
            states.append(state)
        outputs = self.output(torch.stack(states[-self.last :], 1)).mT
        return outputs.squeeze(2) if self.last == 1 else outputs
