"""That extreme eigenvalues equal dense ones, and densities fit known spectra."""

from __future__ import annotations

import geoopt
import pytest
import torch
from curvlinops.examples import TensorLinearOperator
from torch import Tensor, nn

from rsam.curvature import (
    RiemannianGaussNewton,
    RiemannianHessian,
    SpectralDensity,
    density,
    spectral_density,
    top_eigenvalues,
)
from tests.curvature.problems import DOUBLE, dense, examples, labelled, mixed_network, network, normal, probed

MSE = nn.MSELoss()


def with_spectrum(values: Tensor, dtype: torch.dtype = DOUBLE) -> TensorLinearOperator:
    basis = torch.linalg.qr(normal(len(values), len(values))).Q
    return TensorLinearOperator((basis * values @ basis.mT).to(dtype))


def extremes(values: Tensor, which: str, k: int) -> Tensor:
    key = {"largest": -values, "smallest": values, "magnitude": -values.abs()}[which]
    return values[key.argsort()[:k]]


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
@pytest.mark.parametrize("make", [network, mixed_network])
def test_that_eigenvalues_are_the_dense_ones(make, which: str, k: int) -> None:  # type: ignore[no-untyped-def]
    model = make()
    hessian = RiemannianHessian(model, nn.CrossEntropyLoss(), model.parameters(), labelled())
    matrix = dense(hessian)
    pairs = top_eigenvalues(hessian, k, which=which)  # type: ignore[arg-type]
    # the default accuracy is 1.5e-8 of the norm for residuals; errors of values are its square divided by the gap
    scale = float(torch.linalg.matrix_norm(matrix, 2))
    expected = extremes(torch.linalg.eigvalsh(matrix), which, k)
    torch.testing.assert_close(pairs.values, expected, rtol=0, atol=1e-7 * scale)
    torch.testing.assert_close(pairs.vectors.mT @ pairs.vectors, torch.eye(k, dtype=DOUBLE), rtol=0, atol=1e-10)
    residuals = (matrix @ pairs.vectors - pairs.vectors * pairs.values).norm(dim=0)
    torch.testing.assert_close(pairs.residuals, residuals, rtol=1e-3, atol=1e-13)
    assert float(pairs.residuals.max()) <= 1e-6 * scale


@pytest.mark.parametrize("rtol", [0.3, 1e-2])
def test_that_a_true_eigenvalue_lies_within_the_residual(rtol: float) -> None:
    values = torch.linspace(-1, 1, 300, dtype=DOUBLE)
    a = with_spectrum(values)
    for seed in range(5):
        pairs = top_eigenvalues(a, 3, rtol=rtol, seed=seed)
        distances = (pairs.values[:, None] - values).abs().amin(1)
        assert bool((distances <= pairs.residuals + 1e-14).all())
        assert bool((pairs.residuals <= rtol).all())
    assert float(pairs.residuals.max()) > 1e-10  # residuals are large enough to test the bound


def test_that_products_are_counted_and_limited() -> None:
    class Counted(TensorLinearOperator):
        count = 0

        def _matmat(self, X: list[Tensor]) -> list[Tensor]:
            self.count += X[0].shape[-1]
            return super()._matmat(X)

    matrix = dense(with_spectrum(torch.linspace(-1, 1, 300, dtype=DOUBLE)))
    for options in ({"rtol": 0.1}, {"k": 3}):
        a = Counted(matrix)
        assert top_eigenvalues(a, **options).products == a.count > 20  # type: ignore[arg-type]
    a = Counted(matrix)
    with pytest.raises(RuntimeError, match=r"0 of 1 eigenvalues converged in \d+ products"):
        top_eigenvalues(a, rtol=1e-12, max_products=30)
    assert a.count <= 60
    few = Counted(torch.diag(torch.arange(5.0)))
    assert top_eigenvalues(few).products == few.count == 6  # five products for the dense matrix, one for the residual


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_that_small_operators_are_solved_densely_and_exactly(dtype: torch.dtype) -> None:
    values = torch.tensor([-3.0, 0.0, 1.0, 1.0, 2.5])
    a = with_spectrum(values.double(), dtype)
    for which in ("largest", "smallest", "magnitude"):
        pairs = top_eigenvalues(a, 5, which=which)  # type: ignore[arg-type]
        torch.testing.assert_close(pairs.values, extremes(values, which, 5).to(dtype), rtol=1e-6, atol=1e-6)
        assert pairs.values.dtype == dtype


def low_rank(dtype: torch.dtype) -> RiemannianGaussNewton:
    """Make an operator of rank 36 (three outputs of twelve examples) in 163 dimensions."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 20), nn.Tanh(), nn.Linear(20, 3)).to(dtype)
    x, y = examples()
    return RiemannianGaussNewton(model, MSE, model.parameters(), (x.to(dtype), y.to(dtype)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_that_the_smallest_eigenvalue_may_be_zero(dtype: torch.dtype) -> None:
    """Every Gauss-Newton matrix with more parameters than data has a zero eigenvalue; ARPACK alone misses it."""
    a = low_rank(dtype)
    scale = float(torch.linalg.matrix_norm(dense(a), 2))
    # half the digits are the default accuracy
    half = torch.finfo(dtype).eps ** 0.5 * scale
    pairs = top_eigenvalues(a, which="smallest")
    assert abs(float(pairs.values[0])) <= half and float(pairs.residuals[0]) <= 2 * half
    rough = top_eigenvalues(a, which="smallest", rtol=1e-2)
    assert abs(float(rough.values[0])) <= 1e-2 * scale and rough.products < 60
    values = top_eigenvalues(a, 38).values  # more than there are nonzero eigenvalues
    expected = torch.linalg.eigvalsh(dense(a).double()).flip(0)[:38].to(dtype)
    torch.testing.assert_close(values, expected, rtol=0, atol=half)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_that_eigenvalues_of_a_small_or_large_loss_are_as_accurate(which: str, dtype: torch.dtype) -> None:
    values = torch.cat((torch.linspace(-1, 1, 60, dtype=DOUBLE), torch.tensor([2.0, 3.0], dtype=DOUBLE)))
    matrix = dense(with_spectrum(values))
    half = 3 * torch.finfo(dtype).eps ** 0.5  # half the digits of the norm, which is 3
    for scale in (1e-22, 1e-12, 1e12):
        pairs = top_eigenvalues(TensorLinearOperator((scale * matrix).to(dtype)), 3, which=which)  # type: ignore[arg-type]
        size = torch.sort(pairs.values.double() / scale).values
        expected = torch.sort(extremes(values, which, 3)).values
        torch.testing.assert_close(size.abs(), expected.abs(), rtol=0, atol=half)  # of magnitude 1 are two
        assert 0 < float(pairs.residuals.max()) / scale <= half


def test_that_the_zero_operator_has_zero_eigenvalues() -> None:
    for which in ("largest", "smallest", "magnitude"):
        pairs = top_eigenvalues(TensorLinearOperator(torch.zeros(30, 30)), 2, which=which)  # type: ignore[arg-type]
        assert torch.equal(pairs.values, torch.zeros(2)) and torch.equal(pairs.residuals, torch.zeros(2))


def test_that_eigenvalues_on_a_sphere_are_those_of_the_quadratic_form() -> None:
    """At its maximum on the unit sphere x' A x has the Hessian 2 (A - a_1), on the other eigenvectors of A."""
    values = torch.linspace(0, 3, 30, dtype=DOUBLE)
    matrix = dense(with_spectrum(values))
    top = torch.linalg.eigh(matrix).eigenvectors[:, -1]

    class Form(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = geoopt.ManifoldParameter(top, manifold=geoopt.Sphere())

        def forward(self, inputs: Tensor) -> Tensor:
            return self.x @ matrix @ self.x

    model = Form()
    data = torch.zeros(1, 1), torch.zeros(1, 1)
    hessian = RiemannianHessian(model, lambda outputs, targets: outputs, model.parameters(), data)
    for which in ("largest", "smallest"):
        pairs = top_eigenvalues(hessian, 3, which=which)  # type: ignore[arg-type]
        expected = extremes(2 * (values[:-1] - 3), which, 3)
        torch.testing.assert_close(pairs.values, expected, rtol=0, atol=1e-6)
        (v,) = hessian.tangents(pairs.vectors[:, 0])
        torch.testing.assert_close(matrix @ v, (pairs.values[0] / 2 + 3) * v, rtol=0, atol=1e-6)


def test_that_a_seed_fixes_eigenvectors_and_bad_options_are_refused() -> None:
    a = with_spectrum(torch.linspace(-1, 1, 100, dtype=DOUBLE))
    one, same, other = (top_eigenvalues(a, rtol=0.1, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.vectors, same.vectors) and not torch.equal(one.vectors, other.vectors)
    for options, message in (
        ({"k": 0}, "k must be from 1 to the operator's size 100, got 0"),
        ({"k": 101}, "k must be from 1 to the operator's size 100, got 101"),
        ({"which": "LA"}, "which must be 'largest', 'smallest' or 'magnitude', got 'LA'"),
    ):
        with pytest.raises(ValueError, match=message):
            top_eigenvalues(a, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="square"):
        top_eigenvalues(TensorLinearOperator(torch.ones(2, 3)))


# -- densities --------------------------------------------------------------------------------------------------------

THREE = torch.cat([torch.full((60,), -1.0), torch.full((30,), 0.5), torch.full((10,), 2.0)]).double()


def spread(values: Tensor) -> Tensor:
    """Spread equal eigenvalues a little, so that the Lanczos process does not break down."""
    return values + 0.01 * normal(len(values))


def mass(spectrum: SpectralDensity, low: float, high: float) -> float:
    inside = (spectrum.grid >= low) & (spectrum.grid <= high)
    return float(torch.trapezoid(spectrum.density[inside], spectrum.grid[inside]))


def test_that_a_density_integrates_to_one_and_has_its_mass_where_the_eigenvalues_are() -> None:
    spectrum = spectral_density(with_spectrum(spread(THREE)), 30, repeats=40)
    assert torch.trapezoid(spectrum.density, spectrum.grid) == pytest.approx(1, abs=1e-3)
    # a random first vector has 60 +- 5 % of its square there (a beta distribution); the mean of 40 has 5 / 40^0.5
    for at, share in ((-1.0, 0.6), (0.5, 0.3), (2.0, 0.1)):
        assert mass(spectrum, at - 0.3, at + 0.3) == pytest.approx(share, abs=0.04)
    peaks = [float(spectrum.grid[torch.where((spectrum.grid - at).abs() < 0.5, spectrum.density, 0.0).argmax()])
             for at in (-1.0, 0.5, 2.0)]  # fmt: skip
    assert peaks == pytest.approx([-1.0, 0.5, 2.0], abs=0.05)
    # the density vanishes between them
    assert mass(spectrum, -0.5, 0.0) < 1e-3 and mass(spectrum, 1.0, 1.5) < 1e-3
    assert float(spectrum.grid[0]) == pytest.approx(-1 - 0.05 * 3, abs=0.1)


def test_that_the_density_of_a_hessian_has_its_mean_and_variance() -> None:
    model, batch = probed(geoopt.EuclideanStiefel(), (8, 4))
    hessian = RiemannianHessian(model, MSE, model.parameters(), batch)
    values = torch.linalg.eigvalsh(dense(hessian))
    spectrum = spectral_density(hessian, 15, repeats=30, kappa=1.5)
    mean = torch.trapezoid(spectrum.grid * spectrum.density, spectrum.grid)
    width = float(values[-1] - values[0])
    assert float(mean) == pytest.approx(float(values.mean()), abs=0.05 * width)
    assert float(spectrum.grid[0]) <= float(values[0]) and float(spectrum.grid[-1]) >= float(values[-1])


def test_that_the_density_of_a_gauss_newton_matrix_piles_up_at_zero() -> None:
    a = low_rank(DOUBLE)
    top = float(top_eigenvalues(a).values[0])
    spectrum = spectral_density(a, 20, repeats=10)
    share = 1 - 36 / a.shape[0]  # its rank is 36
    assert mass(spectrum, -0.1 * top, 0.1 * top) >= share - 0.05


def test_that_standard_errors_of_a_density_are_those_of_its_repeats() -> None:
    a = with_spectrum(spread(THREE))
    one, two, again, other = (
        spectral_density(a, 20, repeats=repeats, points=200, seed=seed)
        for repeats, seed in ((1, 0), (2, 0), (2, 0), (2, 1))
    )
    assert two.grid.shape == two.density.shape == two.standard_error.shape == (200,)
    # the first of two repeats is the only one of one, and the mean of two numbers is a standard error away from each
    torch.testing.assert_close(two.standard_error, (two.density - one.density).abs(), rtol=1e-9, atol=1e-12)
    assert float(two.standard_error.max()) > 1e-3 and bool(one.standard_error.isnan().all())
    assert torch.equal(two.density, again.density) and not torch.equal(two.density, other.density)


def test_that_densities_are_drawn_on_axes_given_or_new() -> None:
    from matplotlib.figure import Figure

    spectrum = spectral_density(with_spectrum(spread(THREE)), 20, repeats=3, points=100)
    given = Figure().subplots()
    assert spectrum.plot(given) is given
    new = spectrum.plot()
    for ax in (given, new):
        ax.figure.canvas.draw()
        (line,) = ax.lines
        assert line.get_xdata() == pytest.approx(spectrum.grid.numpy())
        top = float(spectrum.density.max())
        assert line.get_ydata() == pytest.approx(spectrum.density.clamp_min(1e-6 * top).numpy())
        assert ax.get_yscale() == "log" and len(ax.collections) == 1
        assert ax.get_xlabel() == "eigenvalue" and ax.get_ylabel() == "density"
    spectral_density(with_spectrum(THREE), 3, repeats=1).plot().figure.canvas.draw()  # without an error band


def test_that_densities_refuse_bad_options_and_say_when_the_process_breaks_down(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    a = with_spectrum(spread(THREE))
    for options, message in (
        ({"steps": 1}, "steps must be from 2 to less than the operator's size 100, got 1"),
        ({"steps": 100}, "got 100"),
        ({"repeats": 0}, "repeats must be at least 1, got 0"),
        ({"points": 1}, "points must be at least 2, got 1"),
        ({"kappa": 1.0}, "kappa must be greater than 1 and finite, got 1"),
        ({"margin": -0.6}, "margin must be finite and not negative, got -0.6"),
    ):
        with pytest.raises(ValueError, match=message):
            spectral_density(a, **options)  # type: ignore[arg-type]
    # rounding keeps it going past the last of few eigenvalues, as a rule
    monkeypatch.setattr(density, "_lanczos", lambda *args: torch.full((10, 10), torch.nan))
    with pytest.raises(RuntimeError, match="broke down within 10 steps; take fewer"):
        spectral_density(a, 10)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_that_equal_eigenvalues_have_no_density(dtype: torch.dtype) -> None:
    for value in (0.0, 3.7, -3.7e-12):  # of a matrix whose entries are rounded
        a = with_spectrum(torch.full((30,), value, dtype=DOUBLE), dtype)
        with pytest.raises(RuntimeError, match=f"all eigenvalues are {value or '-?0'} up to rounding, so that there"):
            spectral_density(a, 10)
    # a density a thousand times as wide is one
    values = 3.7 * (1 + 1e5 * torch.finfo(dtype).eps * torch.linspace(0, 1, 30, dtype=DOUBLE))
    spectrum = spectral_density(with_spectrum(values, dtype), 20)
    grid = (spectrum.grid.double() - 3.7) / (values[-1] - 3.7)
    assert float(grid[0]) == pytest.approx(0, abs=0.2) and float(grid[-1]) == pytest.approx(1, abs=0.2)


def test_that_eigenpairs_are_shown_without_their_long_vectors() -> None:
    pairs = top_eigenvalues(with_spectrum(torch.linspace(-1, 1, 30, dtype=DOUBLE)))
    assert "values=" in repr(pairs)
    assert "vectors" not in repr(pairs)
