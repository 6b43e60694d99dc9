"""That pymanopt has the same Hessians, and that curvlinops' and SciPy's estimators work on ours as they are."""

from __future__ import annotations

import curvlinops
import geoopt
import pymanopt.manifolds
import pytest
import torch
from pymanopt.manifolds.manifold import Manifold
from scipy.sparse.linalg import eigsh
from torch import nn

from rsam.curvature import RiemannianGaussNewton, RiemannianHessian, trace
from tests.curvature.problems import dense, examples, mixed_network, network, normal, probed, risk_at

MSE = nn.MSELoss()

PYMANOPT = [
    pytest.param(geoopt.Sphere(), pymanopt.manifolds.Sphere(4), (4,), id="Sphere"),
    pytest.param(geoopt.EuclideanStiefel(), pymanopt.manifolds.Stiefel(5, 3), (5, 3), id="Stiefel"),
    pytest.param(geoopt.EuclideanStiefel(), pymanopt.manifolds.Stiefel(3, 3), (3, 3), id="square Stiefel"),
    pytest.param(geoopt.SymmetricPositiveDefinite(), pymanopt.manifolds.SymmetricPositiveDefinite(3), (3, 3), id="SPD"),
]


@pytest.mark.parametrize(("manifold", "theirs", "shape"), PYMANOPT)
def test_that_pymanopt_has_the_same_hessian(
    manifold: geoopt.Manifold, theirs: Manifold, shape: tuple[int, ...]
) -> None:
    model, batch = probed(manifold, shape)
    x, risk = model.point.detach(), risk_at(model, batch)
    gradient = torch.autograd.functional.jacobian(risk, x)
    matrix = torch.autograd.functional.hessian(risk, x).reshape(x.numel(), -1)
    hessian = RiemannianHessian(model, MSE, model.parameters(), batch)
    for seed in range(3):
        z = normal(hessian.shape[1], seed=seed)
        (v,) = hessian.tangents(z)
        along_v = (matrix @ v.flatten()).reshape(shape)
        expected = theirs.euclidean_to_riemannian_hessian(x.numpy(), gradient.numpy(), along_v.numpy(), v.numpy())
        ours = hessian @ hessian.coordinates([v])
        torch.testing.assert_close(hessian.tangents(ours)[0], torch.as_tensor(expected), rtol=1e-10, atol=1e-12)


# -- estimators of others ---------------------------------------------------------------------------------------------

OPERATORS = [
    pytest.param(operator, make, id=f"{operator.__name__} of a {make.__name__}")
    for operator in (RiemannianHessian, RiemannianGaussNewton)
    for make in (network, mixed_network)
]


@pytest.mark.parametrize(("operator", "make"), OPERATORS)
def test_that_trace_estimators_of_curvlinops_work(operator, make) -> None:  # type: ignore[no-untyped-def]
    model = make()
    a = operator(model, MSE, model.parameters(), examples())
    matrix = dense(a)
    exact = float(matrix.trace())
    # the standard deviation of a probe with random signs; small enough here for the tests to tell a wrong trace
    deviation = float((2 * (matrix - matrix.diagonal().diag()).square().sum()).sqrt())
    assert deviation < exact
    torch.manual_seed(0)
    assert abs(float(curvlinops.hutchinson_trace(a, 24)) - exact) <= 3 * deviation / 24**0.5
    # these two project, and err less than plain probes do
    for estimator in (curvlinops.hutchpp_trace, curvlinops.xtrace):
        assert abs(float(estimator(a, 24)) - exact) <= 2 * deviation / 24**0.5


@pytest.mark.parametrize(("operator", "make"), OPERATORS)
def test_that_the_spectrum_of_curvlinops_and_scipys_solver_work(operator, make) -> None:  # type: ignore[no-untyped-def]
    model = make()
    a = operator(model, MSE, model.parameters(), examples())
    values = torch.linalg.eigvalsh(dense(a))
    # of its own it does not find the lower end of a spectrum at zero, which that of a Gauss-Newton matrix is
    ends = None if operator is RiemannianHessian else (float(values[0]), float(values[-1]))
    torch.manual_seed(0)
    grid, density = curvlinops.lanczos_approximate_spectrum(a, ncv=15, num_repeats=20, boundaries=ends)
    # the mean of the spectrum is the trace over the size; 20 first vectors average it to a few parts in a hundred
    mean = torch.trapezoid(grid * density, grid) / torch.trapezoid(density, grid)
    assert float((mean - values.mean()).abs()) <= 0.1 * float(values[-1] - values[0])
    top, _ = eigsh(a.to_scipy(), k=3, which="LA")
    torch.testing.assert_close(torch.as_tensor(top.copy()), values[-3:], rtol=1e-8, atol=1e-12)


def test_that_xtrace_is_that_of_curvlinops_on_the_same_probes() -> None:
    model = mixed_network()
    hessian = RiemannianHessian(model, MSE, model.parameters(), examples())
    for seed in range(3):
        torch.manual_seed(seed)
        theirs = curvlinops.xtrace(hessian, 18)
        ours = trace(hessian, 18, method="xtrace", seed=seed)
        assert float(ours) == pytest.approx(float(theirs), rel=1e-10)
        torch.manual_seed(seed)
        theirs = curvlinops.hutchinson_trace(hessian, 23)
        assert float(trace(hessian, 23, seed=seed)) == pytest.approx(float(theirs), rel=1e-10)


def test_that_operators_compose_as_those_of_curvlinops_do() -> None:
    model = mixed_network()
    hessian = RiemannianHessian(model, MSE, model.parameters(), examples())
    gauss_newton = RiemannianGaussNewton(model, MSE, model.parameters(), examples())
    h, g = dense(hessian), dense(gauss_newton)
    torch.testing.assert_close(dense(hessian - 2 * gauss_newton), h - 2 * g)
    torch.testing.assert_close(dense(hessian @ gauss_newton), h @ g)
    assert float(trace(hessian - gauss_newton, method="exact")) == pytest.approx(float((h - g).trace()))
