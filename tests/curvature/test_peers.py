"""That operators equal those of pymanopt and curvlinops, and estimators of other libraries work on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import curvlinops
import geoopt
import numpy as np
import pymanopt.manifolds
import pytest
import torch
from pymanopt.manifolds.manifold import Manifold
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

from rsam.curvature import RiemannianGaussNewton, RiemannianHessian, spectral_density, top_eigenvalues, trace
from tests.curvature.problems import dense, examples, generator, mixed_network, network, normal, probed, risk_at

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


# -- in the place of curvlinops' operators ----------------------------------------------------------------------------


class Convolutional(nn.Module):
    """Model of a mapping, with a convolution, a skip connection, and one weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.mixing, self.last = nn.Conv2d(1, 3, 3, stride=2), nn.Linear(4, 4), nn.Linear(12, 3)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        x = self.first(inputs["images"]).flatten(2)
        return self.last((x + self.mixing(torch.sigmoid(self.mixing(x)))).flatten(1))


class Sequential(nn.Module):
    """Model whose outputs have classes in the second of three dimensions, and positions in the third."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.last = nn.RNN(2, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.recurrent(x)[0]).mT


def _examples_of(inputs: dict[str, Tensor]) -> int:
    return len(inputs["images"])


CLASSES = torch.arange(5) % 3
Batches = list[tuple[Any, Tensor]]
IN_PLACE: dict[str, tuple[Callable[[], nn.Module], nn.Module, Batches, dict[str, Any]]] = {
    "convolutions of a mapping": (
        Convolutional, nn.CrossEntropyLoss(label_smoothing=0.1),
        [({"images": normal(n, 1, 6, 6, seed=n)}, CLASSES[:n]) for n in (4, 1, 2)], {"batch_size_fn": _examples_of},
    ),
    "sequences": (
        Sequential, nn.CrossEntropyLoss(), [(normal(n, 4, 2, seed=n), CLASSES[:4].expand(n, 4)) for n in (3, 2)], {},
    ),
    "binary": (
        network, nn.BCEWithLogitsLoss(reduction="sum"),
        [(normal(n, 4, seed=n), normal(n, 3, seed=n).sigmoid()) for n in (5, 3)], {},
    ),
    "smooth absolute": (network, nn.SmoothL1Loss(), [(normal(n, 4), normal(n, 3, seed=1)) for n in (3, 3)], {}),
}  # fmt: skip


@pytest.mark.parametrize("case", IN_PLACE)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (RiemannianHessian, curvlinops.HessianLinearOperator),
        (RiemannianGaussNewton, curvlinops.GGNLinearOperator),
    ],
    ids=["Hessian", "Gauss-Newton"],
)
def test_that_operators_stand_in_for_those_of_curvlinops(ours: Any, theirs: Any, case: str) -> None:
    make, loss_func, data, options = IN_PLACE[case]
    model = make().double()
    # without the first parameter, so that the operator is that of a part of the model
    arguments = model, loss_func, list(model.parameters())[1:], data
    a, b = ours(*arguments, **options), theirs(*arguments, **options)
    assert (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
    columns = normal(a.shape[1], 3)
    parts = [t.reshape(*s, 3) for t, s in zip(columns.split(b._in_shape_flat), b._in_shape, strict=True)]
    for x in (columns, columns[:, 0], parts, [t[..., 1] for t in parts]):
        torch.testing.assert_close(a @ x, b @ x, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(a.adjoint() @ x, b.adjoint() @ x, rtol=1e-9, atol=1e-12)
    one, other = a.to_scipy(), b.to_scipy()
    for product in ("matvec", "rmatvec", "matmat", "rmatmat"):
        x = (columns if "mat" in product[-3:] else columns[:, 0]).numpy()
        np.testing.assert_allclose(getattr(one, product)(x), getattr(other, product)(x), rtol=1e-9, atol=1e-12)


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
    # the standard deviation for a probe with random signs; so small that these tests would notice a wrong trace
    deviation = float((2 * (matrix - matrix.diagonal().diag()).square().sum()).sqrt())
    assert deviation < exact
    torch.manual_seed(0)
    assert abs(float(curvlinops.hutchinson_trace(a, 24)) - exact) <= 3 * deviation / 24**0.5
    # these two project, and have smaller errors than plain probes
    for estimator in (curvlinops.hutchpp_trace, curvlinops.xtrace):
        assert abs(float(estimator(a, 24)) - exact) <= 2 * deviation / 24**0.5


@pytest.mark.parametrize(("operator", "make"), OPERATORS)
def test_that_the_spectrum_of_curvlinops_and_scipys_solver_work(operator, make) -> None:  # type: ignore[no-untyped-def]
    model = make()
    a = operator(model, MSE, model.parameters(), examples())
    values = torch.linalg.eigvalsh(dense(a))
    # by itself it does not find the lower end of the spectrum if that is zero, as for a Gauss-Newton matrix
    ends = None if operator is RiemannianHessian else (float(values[0]), float(values[-1]))
    torch.manual_seed(0)
    grid, density = curvlinops.lanczos_approximate_spectrum(a, ncv=15, num_repeats=20, boundaries=ends)
    # the mean of the spectrum is the trace divided by the size; with 20 first vectors it is right to a few per cent
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
        ours = trace(hessian, 18, method="xtrace", seed=generator(seed))
        assert float(ours) == pytest.approx(float(theirs), rel=1e-10)
        torch.manual_seed(seed)
        theirs = curvlinops.hutchinson_trace(hessian, 23)
        assert float(trace(hessian, 23, seed=generator(seed))) == pytest.approx(float(theirs), rel=1e-10)


def test_that_a_density_is_that_of_curvlinops_from_the_same_vector() -> None:
    model = mixed_network()
    hessian = RiemannianHessian(model, MSE, model.parameters(), examples())
    source = generator(3)  # of which the ends are found first
    ends = [
        top_eigenvalues(hessian, which=which, rtol=1e-2, seed=source).values[0] for which in ("smallest", "largest")
    ]
    torch.manual_seed(int(torch.randint(2**31, (1,), generator=source)))
    options: dict[str, Any] = {"kappa": 2.0, "margin": 0.1}
    grid, density = curvlinops.lanczos_approximate_spectrum(
        hessian, 12, num_points=100, boundaries=tuple(map(float, ends)), **options
    )
    ours = spectral_density(hessian, 12, repeats=1, points=100, seed=generator(3), **options)
    torch.testing.assert_close(ours.grid, grid, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(ours.density, density, rtol=1e-10, atol=1e-12)


def test_that_operators_compose_as_those_of_curvlinops_do() -> None:
    model = mixed_network()
    hessian = RiemannianHessian(model, MSE, model.parameters(), examples())
    gauss_newton = RiemannianGaussNewton(model, MSE, model.parameters(), examples())
    h, g = dense(hessian), dense(gauss_newton)
    torch.testing.assert_close(dense(hessian - 2 * gauss_newton), h - 2 * g)
    torch.testing.assert_close(dense(hessian @ gauss_newton), h @ g)
    assert float(trace(hessian - gauss_newton, method="exact")) == pytest.approx(float((h - g).trace()))
