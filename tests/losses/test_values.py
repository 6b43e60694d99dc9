"""That values are those of the formulas, computed in another way."""

from __future__ import annotations

import geoopt
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rsam
from rsam.losses import FisherTrace, GradientNorm, HessianTrace, Sharpness
from tests.losses.problems import DOUBLE, Problem, signs


def logistic() -> tuple[nn.Parameter, Tensor, np.ndarray, np.ndarray]:
    """Make a logistic regression, with the analytic gradient and Hessian of its loss."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 3, generator=generator, dtype=DOUBLE)
    w = nn.Parameter(torch.tensor([0.3, -1.0, 0.5], dtype=DOUBLE))
    probability = 1 / (1 + np.exp(x.numpy() @ w.detach().numpy()))  # probability of a mistake, since all labels are one
    gradient = -(probability[:, None] * x.numpy()).mean(0)
    hessian = (x.numpy().T * (probability * (1 - probability))) @ x.numpy() / 7
    return w, x, gradient, hessian


@pytest.mark.parametrize("method", ["exact", "difference"])
@pytest.mark.parametrize("p", [1, 2])
def test_gradient_norm_of_logistic_regression(p, method) -> None:
    w, x, gradient, hessian = logistic()
    value = GradientNorm([w], p=p, method=method)(lambda: nn.functional.softplus(-x @ w).mean())
    value.backward()
    n = np.linalg.norm(gradient)
    assert value.item() == pytest.approx(n**p)
    # the error of the difference is its step, 1e-8
    np.testing.assert_allclose(w.grad.numpy(), p * n ** (p - 2) * hessian @ gradient, rtol=1e-5)


@pytest.mark.parametrize("method", ["exact", "difference"])
def test_gradient_norm_at_a_zero_gradient_is_zero(method) -> None:
    w = nn.Parameter(torch.zeros(3))
    value = GradientNorm([w], method=method)(lambda: w.square().sum())
    value.backward()
    assert value.item() == 0
    assert w.grad.tolist() == [0, 0, 0]


@pytest.mark.parametrize("exponent", [-90, 90])
@pytest.mark.parametrize("method", ["exact", "difference"])
def test_that_the_norm_of_a_gradient_is_found_where_its_squares_are_no_numbers(method, exponent) -> None:
    """A power of two commutes with rounding, and 2^±180 is not in the range of single precision."""

    def value_and_gradients(factor: float) -> list[Tensor]:
        w = nn.Parameter(torch.tensor([0.3, -1.0]))
        x = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=geoopt.Sphere())
        b = geoopt.ManifoldParameter(torch.tensor([0.1, -0.5]), manifold=geoopt.PoincareBall())
        penalty = GradientNorm([w, x, b], method=method, step=1e-2)
        value = penalty(lambda: factor * (w * w * x + w.flip(0) * b).sum() ** 2)
        return [value.detach(), *torch.autograd.grad(value, [w, x, b])]

    expected, scaled = value_and_gradients(1.0), value_and_gradients(2.0**exponent)
    for e, s in zip(expected, scaled, strict=True):
        assert e.any()
        torch.testing.assert_close(s * 2.0**-exponent, e, rtol=1e-5, atol=1e-6)


def average_over_signs(penalty, closure, params: list[Tensor]) -> tuple[float, list[Tensor]]:
    """Average value and gradient over all sign probes, which is the expectation for a quadratic form."""
    shapes = rsam.geometry.Product(params).coordinates_shape(params)
    sizes = [shape.numel() for shape in shapes]
    values, gradients = [], []
    for z in signs(sum(sizes)):
        drawn = [part.view(shape) for part, shape in zip(z.split(sizes), shapes, strict=True)]
        penalty.coordinates = lambda _, drawn=drawn: drawn
        value = penalty(closure)
        values.append(value.item())
        gradients.append(torch.autograd.grad(value, params))
    return float(np.mean(values)), [torch.stack(g).mean(0) for g in zip(*gradients, strict=True)]


# a difference of length 1e-3 has errors of its square and, in the value, of 1e-16 divided by that
@pytest.mark.parametrize(("options", "tolerance"), [({}, 1e-9), ({"method": "difference", "step": 1e-3}, 1e-4)])
def test_trace_is_that_of_the_dense_hessian(options, tolerance) -> None:
    a, b = nn.Parameter(torch.rand(2, 2, dtype=DOUBLE)), nn.Parameter(torch.rand(3, dtype=DOUBLE))
    problem = Problem([a, b])

    def trace(x: Tensor) -> Tensor:
        def loss(y: Tensor) -> Tensor:
            moved = Problem([y[:4].view(2, 2), y[4:]])
            moved.mixing = problem.mixing
            return moved.loss()

        return torch.autograd.functional.hessian(loss, x, create_graph=True).trace()

    x = torch.cat([a.detach().flatten(), b.detach()]).requires_grad_()
    expected = trace(x)
    (gradient,) = torch.autograd.grad(expected, x)
    value, (g_a, g_b) = average_over_signs(HessianTrace([a, b], **options), problem.loss, [a, b])
    assert value == pytest.approx(expected.item(), rel=tolerance)
    torch.testing.assert_close(torch.cat([g_a.flatten(), g_b]), gradient, rtol=tolerance, atol=tolerance)


def quadratic_form(problem: Problem, x: Tensor, v: Tensor) -> float:
    """Compute the second derivative of the loss along a straight line in the ambient space."""
    t = torch.zeros((), dtype=DOUBLE, requires_grad=True)
    moved = Problem([x.detach() + t * v])
    moved.mixing = problem.mixing
    (first,) = torch.autograd.grad(moved.loss(), t, create_graph=True)
    return torch.autograd.grad(first, t)[0].item()


def units(x: Tensor) -> list[Tensor]:
    return list(torch.eye(x.numel(), dtype=DOUBLE).view(-1, *x.shape))


def closed_form(name: str, problem: Problem, x: Tensor, g: Tensor) -> float:
    """Compute the trace of the Riemannian Hessian from ambient gradient and Hessian, by each manifold's formula."""
    if name == "sphere":
        n = len(x)
        tangent = [e - x * (x @ e) for e in units(x)]
        return sum(quadratic_form(problem, x, e) for e in tangent) - (n - 1) * (x @ g).item()
    if name == "stiefel":  # the projection is orthogonal, so the trace of P H P is a sum over projected units
        n, p = x.shape
        tangent = [e - x @ (x.T @ e + e.T @ x) / 2 for e in units(x)]
        return sum(quadratic_form(problem, x, e) for e in tangent) - (n - (p + 1) / 2) * (x.T @ g).trace().item()
    if name == "ball":
        n, factor = len(x), 2 / (1 - (x @ x).item())
        flat = sum(quadratic_form(problem, x, e) for e in units(x))
        return (flat + (n - 2) * factor * (x @ g).item()) / factor**2
    assert name == "spd"
    n = len(x)
    root = torch.linalg.cholesky(x)
    basis = []
    for i in range(n):
        for j in range(i + 1):
            e = torch.zeros(n, n, dtype=DOUBLE)
            e[i, j] = e[j, i] = 1 if i == j else 0.5**0.5
            basis.append(root @ e @ root.T)
    return sum(quadratic_form(problem, x, b) for b in basis) + (n + 1) / 2 * (x @ g).trace().item()


POINTS = {
    "sphere": (geoopt.Sphere(), torch.tensor([0.5, -0.5, 0.5, 0.5], dtype=DOUBLE)),
    "stiefel": (
        geoopt.EuclideanStiefel(),
        torch.tensor([[0.6, 0], [0.8, 0], [0, 1], [0, 0]], dtype=DOUBLE),
    ),
    "ball": (geoopt.PoincareBall(), torch.tensor([0.3, -0.4, 0.2], dtype=DOUBLE)),
    "spd": (geoopt.SymmetricPositiveDefinite(), torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=DOUBLE)),
}


@pytest.mark.parametrize(("options", "tolerance"), [({}, 1e-9), ({"method": "difference", "step": 1e-3}, 1e-4)])
@pytest.mark.parametrize("name", POINTS)
def test_trace_on_manifolds_is_the_closed_form(name, options, tolerance) -> None:
    manifold, point = POINTS[name]
    x = geoopt.ManifoldParameter(point.clone(), manifold=manifold)
    problem = Problem([x])
    (g,) = torch.autograd.grad(problem.loss(), x)
    plain = x.detach().as_subclass(Tensor)
    value, _ = average_over_signs(HessianTrace([x], **options), problem.loss, [x])
    assert value == pytest.approx(closed_form(name, problem, plain, g), rel=tolerance, abs=tolerance)


def test_clamp_replaces_what_lies_below() -> None:
    w = nn.Parameter(torch.tensor([0.5, 1.0]))
    for method in ("exact", "difference"):
        for sign, expected in ((1, 9.0), (-1, -2.0)):  # the Hessian is diag(3, 6), or its negative
            penalty = HessianTrace([w], method=method, clamp=-2.0)
            value = penalty(lambda sign=sign: sign * w.pow(3).sum())
            (gradient,) = torch.autograd.grad(value, w)
            assert value.item() == pytest.approx(expected, rel=1e-2)  # a three-point difference in single precision
            assert gradient.tolist() == pytest.approx([6, 6] if sign > 0 else [0, 0], rel=1e-2)


def test_linear_losses_have_no_trace_and_no_gradient() -> None:
    w = nn.Parameter(torch.tensor([1.0, 2.0]))
    value = HessianTrace([w])(lambda: w.sum())
    value.backward()
    assert value.item() == 0


LOSSES = {
    "categorical": nn.functional.cross_entropy,
    "bernoulli": nn.functional.binary_cross_entropy_with_logits,
    "gaussian": nn.functional.mse_loss,
}


@pytest.mark.parametrize("method", ["exact", "difference"])
@pytest.mark.parametrize("likelihood", LOSSES)
@pytest.mark.parametrize("shape", [(2, 3), (2, 2, 2)])
def test_fisher_trace_is_that_of_the_gauss_newton_matrix(likelihood, shape, method) -> None:
    """Compare means over all signs, with the Hessian of torch's own loss, on plain weights and on a sphere."""
    generator = torch.Generator().manual_seed(0)
    w = nn.Parameter(torch.randn(3, generator=generator, dtype=DOUBLE))
    x = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8], dtype=DOUBLE), manifold=geoopt.Sphere())
    size = torch.Size(shape).numel()
    mixing = torch.randn(5, size, generator=generator, dtype=DOUBLE)
    target = torch.rand(shape, generator=generator, dtype=DOUBLE)
    target = target.argmax(1) if likelihood == "categorical" else target

    def outputs(joined: Tensor) -> Tensor:
        return torch.sin(joined @ mixing).view(shape)

    def gauss_newton_trace(joined: Tensor) -> Tensor:
        jacobian = torch.autograd.functional.jacobian(outputs, joined, create_graph=True).view(size, 5)
        middle = torch.autograd.functional.hessian(
            lambda f: LOSSES[likelihood](f, target), outputs(joined), create_graph=True
        ).view(size, size)
        point = joined[3:]
        tangent = torch.eye(2, dtype=DOUBLE) - torch.outer(point, point)
        metric = torch.block_diag(torch.eye(3, dtype=DOUBLE), tangent)
        return (metric @ jacobian.T @ middle @ jacobian).trace()

    joined = torch.cat([w.detach(), x.detach().as_subclass(Tensor)]).requires_grad_()
    expected = gauss_newton_trace(joined)
    (gradient,) = torch.autograd.grad(expected, joined)
    penalty = FisherTrace([w, x], likelihood=likelihood, method=method)
    values, gradients = [], []
    for s in signs(size):
        penalty._signs = lambda _, s=s: s.view(shape)
        value = penalty(lambda: outputs(torch.cat([w, x.as_subclass(Tensor)])))
        values.append(value.item())
        gradients.append(torch.cat(torch.autograd.grad(value, [w, x])))
    assert np.mean(values) == pytest.approx(expected.item())
    actual, point = torch.stack(gradients).mean(0), joined[3:].detach()
    # on the sphere only the tangent parts mean something; the difference's error is its step, 1e-8
    tangent = torch.tensor([-point[1], point[0]], dtype=DOUBLE)
    torch.testing.assert_close(actual[:3], gradient[:3], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(actual[3:] @ tangent, gradient[3:] @ tangent, rtol=1e-5, atol=1e-6)


def test_fisher_trace_counts_across_batch_norm() -> None:
    """Examples interact through batch statistics: the trace includes the whole Jacobian; cross terms average out."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Tanh()).double()
    x = torch.randn(3, 2, dtype=DOUBLE)
    names = [name for name, _ in model.named_parameters()]

    def outputs(*values: Tensor) -> Tensor:
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x,))

    params = tuple(model.parameters())
    jacobian = torch.cat([j.flatten(2) for j in torch.autograd.functional.jacobian(outputs, params)], -1).flatten(0, 1)
    probability = torch.softmax(model(x), 1)
    middle = torch.block_diag(*(torch.diag(p) - torch.outer(p, p) for p in probability)) / 3
    expected = (jacobian.T @ middle @ jacobian).trace().item()
    penalty = FisherTrace(params)
    values = []
    for s in signs(6):
        penalty._signs = lambda _, s=s: s.view(3, 2)
        values.append(penalty(lambda: model(x)).item())
    assert np.mean(values) == pytest.approx(expected)


def test_sharpness_of_a_quadratic() -> None:
    """A quadratic rises by ``rho^2/2`` times the trace of the Hessian, exactly so for sign probes if it is diagonal."""
    w = nn.Parameter(torch.tensor([1.0, -2.0], dtype=DOUBLE))
    penalty = Sharpness([w], 0.3, probes=3, distribution="rademacher")
    value = penalty(lambda: (torch.tensor([1.0, 5.0], dtype=DOUBLE) * w**2).sum())
    value.backward()
    assert value.item() == pytest.approx(0.3**2 * 6)
    assert w.grad.tolist() == pytest.approx([0, 0], abs=1e-12)
