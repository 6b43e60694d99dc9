"""That the plain loop to which frameworks are compared is SAM as in the paper."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tests.integrations.problems import LR, MOMENTUM, RHO, batches, difference, whole_steps


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def test_that_the_plain_loop_is_sam_by_hand() -> None:
    by_rsam, by_hand = _network(), _network()
    whole_steps(by_rsam, batches())
    params = list(by_hand.parameters())
    sgd = torch.optim.SGD(params, lr=LR, momentum=MOMENTUM)
    for x, y in batches():
        gradient = torch.autograd.grad(cross_entropy(by_hand(x), y), params)
        norm = torch.stack([g.square().sum() for g in gradient]).sum().sqrt()
        ascent = [RHO * g / norm for g in gradient]
        with torch.no_grad():
            torch._foreach_add_(params, ascent)
        sgd.zero_grad()
        cross_entropy(by_hand(x), y).backward()
        with torch.no_grad():
            torch._foreach_sub_(params, ascent)
        sgd.step()
    assert difference(by_rsam, by_hand) < 1e-15 * 10  # float64, weights below one


def test_that_without_a_radius_it_is_sgd() -> None:
    by_rsam, by_torch = _network(), _network()
    whole_steps(by_rsam, batches(), rho=0.0)
    sgd = torch.optim.SGD(by_torch.parameters(), lr=LR, momentum=MOMENTUM)
    for x, y in batches():
        sgd.zero_grad()
        cross_entropy(by_torch(x), y).backward()
        sgd.step()
    assert difference(by_rsam, by_torch) == 0
