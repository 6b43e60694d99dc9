"""That the ascent has the direction that a user's function returns."""

from __future__ import annotations

import geoopt
import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

import rsam
from tests.optim.problems import closure_of, copies, equal, manifold_points, network, robust

RHO = 0.3


def friendly(weights: rsam.optim.Weights) -> list[torch.Tensor]:
    """Return the direction of friendly SAM (Li et al. 2024): the gradient without its part along the running mean."""
    r, m = weights.raise_index(weights.gradients), weights.momentum()
    share = weights.inner(r, m) / weights.inner(m, m).clamp_min(1e-30)
    return [a - share * b for a, b in zip(r, m, strict=True)]


def test_that_friendly_sam_takes_ten_lines() -> None:
    model, loss = network()
    opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9, rho=RHO, direction=friendly)
    params = list(model.parameters())
    w, m = parameters_to_vector(params).detach().clone(), 0.0
    for t in range(20):
        opt.step(closure_of(opt, loss))
        ours = parameters_to_vector(params).detach().clone()
        vector_to_parameters(w, params)
        g = parameters_to_vector(torch.autograd.grad(loss(), params))
        d = g if t == 0 else g - (g @ m) / (m @ m) * m
        vector_to_parameters(w + RHO * d / d.norm(), params)
        m = 0.9 * m + parameters_to_vector(torch.autograd.grad(loss(), params))
        w = w - 0.1 * m
        torch.testing.assert_close(ours, w, rtol=1e-10, atol=1e-10)  # tolerances as above
        vector_to_parameters(ours, params)


def test_that_what_is_left_is_orthogonal_in_the_metric_of_manifolds() -> None:
    """Inner products are geoopt's, over all parameters: two spheres, which are one block, and five other manifolds."""
    chosen = ("sphere", "stiefel", "ball", "lorentz", "spd", "plain")
    params = [manifold_points()[name] for name in chosen]
    params.append(geoopt.ManifoldParameter(params[0].detach().roll(1, 0), manifold=params[0].manifold))
    told = []

    def listening(weights: rsam.optim.Weights) -> list[torch.Tensor]:
        tangents = friendly(weights)
        told.clear()
        for block, m, t in zip(weights.blocks, weights.momentum(), tangents, strict=True):
            told.extend(zip(block.indices, block.scatter(m), block.scatter(t), strict=True))
        return tangents

    opt, loss = rsam.RSAM(params, lr=0.01, momentum=0.9, rho=RHO, direction=listening), robust(params)
    for _ in range(3):
        opt.step(closure_of(opt, loss))
    closure_of(opt, loss)()
    points = copies(params)
    opt.first_step()
    assert sorted(i for i, *_ in told) == list(range(len(params)))

    def inner(us: list[torch.Tensor], vs: list[torch.Tensor]) -> float:
        terms = [
            params[i].manifold.inner(points[i], u, v, keepdim=True) for (i, *_), u, v in zip(told, us, vs, strict=True)
        ]
        return sum(term.sum().item() for term in terms)

    ms, ts = [m for _, m, _ in told], [t for *_, t in told]
    lengths = (inner(ms, ms) * inner(ts, ts)) ** 0.5
    assert lengths > 0
    assert abs(inner(ms, ts)) <= 1e-12 * lengths  # rounding
    # single blocks are not orthogonal, since the product is one space
    assert abs(params[0].manifold.inner(points[0], told[0][1], told[0][2]).sum().item()) > 1e-6 * lengths


def test_that_a_function_which_needs_no_gradient_ascends_before_the_only_pass() -> None:
    def outwards(weights: rsam.optim.Weights) -> list[torch.Tensor]:
        assert weights.gradients == []
        return [x.clone() for x in weights.points]

    outwards.needs_gradient = False
    w = torch.nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.1, rho=1.0, direction=outwards)
    calls = []
    value = opt.step(closure_of(opt, lambda: calls.append(None) or (w**2).sum()))
    assert len(calls) == 1
    assert value.item() == pytest.approx(36.0)  # the loss at 6/5 of the weights
    torch.testing.assert_close(w.detach(), torch.tensor([3.0, 4.0]).double() * (1 - 0.1 * 2 * 1.2))
    assert opt.sharpness is None


@pytest.mark.parametrize("radius", ["product", "parameter", "point"])
def test_that_a_function_may_change_the_list_that_it_got(radius) -> None:
    """RSAM normalises by the norm of what the function returns, not of what it was given."""

    def louder(weights: rsam.optim.Weights) -> list[torch.Tensor]:
        tangents = weights.raise_index(weights.gradients)
        for i in range(len(tangents)):
            tangents[i] = 3 * tangents[i]
        return tangents

    w = torch.tensor([0.6, 0.8, 0.0], dtype=torch.float64)
    x = geoopt.ManifoldParameter(w.clone(), manifold=geoopt.Sphere())
    opt = rsam.RSAM([x], lr=0.1, rho=RHO, ascent="exponential", direction=louder, radius=radius)
    x[2].backward()
    opt.first_step()
    torch.testing.assert_close(x.detach(), np.cos(RHO) * w + np.sin(RHO) * torch.tensor([0.0, 0.0, 1.0]).double())


def test_that_an_exception_in_the_direction_leaves_the_weights_bitwise() -> None:
    def broken(weights: rsam.optim.Weights) -> list[torch.Tensor]:
        raise ZeroDivisionError("no way up")

    params = list(manifold_points().values())
    opt, loss = rsam.RSAM(params, lr=0.01, direction=broken), robust(params)
    before = copies(params)
    with pytest.raises(ZeroDivisionError, match="no way up"):
        opt.step(closure_of(opt, loss))
    assert equal(params, before)
    opt.direction = "gradient"
    opt.step(closure_of(opt, loss))  # the optimizer still works
    assert not equal(params, before)


@pytest.mark.parametrize(
    "returned",
    [
        lambda tangents: tangents[:1],
        lambda tangents: [tangents[0], tangents[1].sum()],
        lambda tangents: torch.stack(tangents),
        lambda tangents: None,
    ],
    ids=["too few", "a number", "a tensor", "nothing"],
)
def test_that_what_is_no_list_of_tangents_is_refused_by_name(returned) -> None:
    def confused(weights: rsam.optim.Weights) -> object:
        return returned(weights.raise_index(weights.gradients))

    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    opt = rsam.RSAM(params, torch.optim.SGD, lr=0.1, direction=confused)
    with pytest.raises(ValueError, match=r"one tangent per block, of the shapes of weights\.points; confused does not"):
        opt.step(closure_of(opt, lambda: (params[0] * params[1]).sum()))
    assert equal(params, [torch.ones(2)] * 2)


def test_that_a_misspelt_direction_is_refused() -> None:
    with pytest.raises(ValueError, match=r"direction must be one of .*'momentum'.*got 'friendly'"):
        rsam.RSAM([torch.nn.Parameter(torch.ones(2))], torch.optim.SGD, lr=0.1, direction="friendly")


def test_that_a_function_may_return_the_gradients_themselves_or_what_it_keeps() -> None:
    """A step writes to neither, since a direction may be a running mean that the function keeps."""
    w = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.1, rho=0.5, direction=lambda weights: weights.gradients)
    w.grad = torch.tensor([3.0, 4.0])
    opt.first_step()
    torch.testing.assert_close(w.detach(), torch.tensor([3.3, 4.4]))
    assert torch.equal(w.grad, torch.tensor([3.0, 4.0]))

    x = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8, 0.0]), manifold=geoopt.Sphere())
    kept = [torch.tensor([0.0, 0.0, 2.0])]
    opt = rsam.RSAM([x], lr=0.1, rho=RHO, ascent="exponential", direction=lambda weights: kept)
    x.grad = torch.ones(3)
    for _ in range(2):
        opt.first_step()
        torch.testing.assert_close(
            x.detach(), torch.tensor([0.6 * np.cos(RHO), 0.8 * np.cos(RHO), np.sin(RHO)], dtype=torch.float32)
        )
        opt.restore()
    assert torch.equal(kept[0], torch.tensor([0.0, 0.0, 2.0]))
