"""That a step of RSAM is that of the formulas."""

from __future__ import annotations

import geoopt
import numpy as np
import pytest
import torch

import rsam
from tests.optim import reference

SHAPES = {
    "Euclidean": (3,),
    "Sphere": (4,),
    "EuclideanStiefel": (5, 2),
    "CanonicalStiefel": (5, 2),
    "PoincareBall": (3,),
    "Lorentz": (4,),
    "SPD": (3, 3),
}


def _manifold(name: str) -> geoopt.Manifold:
    if name == "CanonicalStiefel":
        return rsam.geometry.CanonicalStiefel()
    if name == "SPD":
        return geoopt.SymmetricPositiveDefinite()
    if name == "PoincareBall":
        return geoopt.PoincareBall(torch.tensor(1.0, dtype=torch.float64))
    if name == "Lorentz":
        return geoopt.Lorentz(torch.tensor(1.0, dtype=torch.float64))
    return getattr(geoopt, name)()


def _point(name: str, rng: np.random.Generator) -> np.ndarray:
    z = rng.standard_normal(SHAPES[name])
    if name == "Sphere":
        return z / np.linalg.norm(z)
    if "Stiefel" in name:
        return np.linalg.qr(z)[0]
    if name == "PoincareBall":
        return 0.8 * z / np.linalg.norm(z)
    if name == "Lorentz":
        return np.concatenate([[np.sqrt(1 + np.sum(z[1:] ** 2))], z[1:]])
    if name == "SPD":
        return z @ z.T + np.eye(3)
    return z


def _problem(names: list[str], seed: int):
    """Make points, and the gradient of a quartic function of all of them."""
    rng = np.random.default_rng(seed)
    xs = [_point(name, rng) for name in names]
    coefficients = [rng.standard_normal(x.shape) for x in xs]

    def loss(points, total=sum):
        s = total((a * p).sum() for a, p in zip(coefficients_for(points), points, strict=True))
        return s + s**2 / 2 + total((p**4).sum() for p in points) / 10

    def coefficients_for(points):
        return [torch.as_tensor(a) for a in coefficients] if torch.is_tensor(points[0]) else coefficients

    def gradient(points):
        s = sum(np.sum(a * p) for a, p in zip(coefficients, points, strict=True))
        return [(1 + s) * a + 4 * p**3 / 10 for a, p in zip(coefficients, points, strict=True)]

    return xs, loss, gradient


def _step(params: list[torch.Tensor], loss, transport: str, ascent: str = "retraction") -> None:
    options = {"lr": reference.LR, "rho": reference.RHO, "transport": transport, "ascent": ascent}
    opt = rsam.RSAM(params, rsam.optim.RiemannianSGD, **options)

    def closure():
        opt.zero_grad()
        value = loss()
        value.backward()
        return value

    opt.step(closure)


# float64 rounding of 1e-16, amplified by less than 1e3 (most by the ball's factor at |x| = 0.8)
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.mark.parametrize("ascent", ["retraction", "exponential"])
@pytest.mark.parametrize("transport", ["vector", "pullback", "project"])
@pytest.mark.parametrize("name", list(SHAPES))
def test_one_step_on_each_manifold(name: str, transport: str, ascent: str) -> None:
    xs, loss, gradient = _problem([name], seed=0)
    p = geoopt.ManifoldParameter(torch.tensor(xs[0]), manifold=_manifold(name))
    _step([p], lambda: loss([p]), transport, ascent)
    (expected,) = reference.step([getattr(reference, name)()], xs, gradient, transport, ascent)
    np.testing.assert_allclose(p.detach().numpy(), expected, **TOLERANCE)


@pytest.mark.parametrize("transport", ["vector", "pullback", "project"])
def test_one_step_on_parameters_of_all_kinds_shares_one_norm(transport: str) -> None:
    names = list(SHAPES)
    xs, loss, gradient = _problem(names, seed=1)
    params = [geoopt.ManifoldParameter(torch.tensor(x), manifold=_manifold(n)) for x, n in zip(xs, names, strict=True)]
    _step(params, lambda: loss(params), transport)
    expected = reference.step([getattr(reference, n)() for n in names], xs, gradient, transport)
    for p, e in zip(params, expected, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), e, **TOLERANCE)


@pytest.mark.parametrize("transport", ["vector", "pullback", "project"])
def test_one_step_on_a_product_manifold(transport: str) -> None:
    names = list(SHAPES)[1:]
    xs, loss, gradient = _problem(names, seed=2)
    product = geoopt.ProductManifold(*((_manifold(n), SHAPES[n]) for n in names))
    p = geoopt.ManifoldParameter(product.pack_point(*map(torch.tensor, xs)), manifold=product)
    _step([p], lambda: loss(product.unpack_tensor(p)), transport)
    expected = reference.step([getattr(reference, n)() for n in names], xs, gradient, transport)
    for part, e in zip(product.unpack_tensor(p.detach()), expected, strict=True):
        np.testing.assert_allclose(part.numpy(), e, **TOLERANCE)


@pytest.mark.parametrize("transport", ["vector", "pullback", "project"])
def test_the_perturbation_is_right_on_geoopts_own_canonical_stiefel(transport: str) -> None:
    xs, loss, gradient = _problem(["CanonicalStiefel"], seed=3)
    p = geoopt.ManifoldParameter(torch.tensor(xs[0]), manifold=geoopt.Stiefel())
    _step([p], lambda: loss([p]), transport)
    (expected,) = reference.step([reference.CanonicalStiefel()], xs, gradient, transport)
    np.testing.assert_allclose(p.detach().numpy(), expected, **TOLERANCE)
