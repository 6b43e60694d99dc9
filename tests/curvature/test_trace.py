"""That traces are right in expectation, with right errors, stop as asked, and work layer by layer."""

from __future__ import annotations

import itertools

import pytest
import torch
from curvlinops.examples import TensorLinearOperator
from torch import Tensor, nn

from rsam.curvature import Estimate, RiemannianHessian, layer_traces, trace
from tests.curvature.problems import DOUBLE, dense, examples, generator, mixed_network, network, normal


def with_spectrum(values: Tensor, seed: int = 0) -> TensorLinearOperator:
    basis = torch.linalg.qr(normal(len(values), len(values), seed=seed)).Q
    return TensorLinearOperator(basis * values @ basis.mT)


FLAT = torch.linspace(-1, 2, 40, dtype=DOUBLE)
DECAYING = 1 / torch.arange(1, 61, dtype=DOUBLE) ** 2


def test_that_random_signs_are_unbiased_over_all_of_them() -> None:
    a = with_spectrum(torch.tensor([-1.0, 0.5, 1.0, 3.0], dtype=DOUBLE))
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=4)), dtype=DOUBLE)
    forms = ((signs @ dense(a)) * signs).sum(1)
    assert float(forms.mean()) == pytest.approx(3.5, rel=1e-12)
    samples = trace(a, 500).samples
    # each probe is one of these, and each pair is equally likely: 500 in 8 pairs are 62.5 each, with deviation 7.4
    place = (samples[:, None] - forms).abs().argmin(1)
    torch.testing.assert_close(forms[place], samples)
    pairs = torch.bincount(torch.minimum(place, 15 - place), minlength=8)
    assert len(pairs) == 8 and int(pairs.min()) > 62.5 - 4 * 7.4 and int(pairs.max()) < 62.5 + 4 * 7.4


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
@pytest.mark.parametrize("method", ["hutchinson", "xtrace"])
def test_that_estimates_of_many_seeds_average_to_the_trace(method: str, distribution: str) -> None:
    for values in (FLAT, DECAYING):
        a = with_spectrum(values)
        actual = torch.tensor(
            [float(trace(a, 12, method=method, distribution=distribution, seed=s)) for s in range(200)]  # type: ignore[arg-type]
        )
        # the mean of 200 estimates, in units of its own deviation
        assert abs(float(actual.mean() - values.sum())) <= 3 * float(actual.std()) / 200**0.5


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
def test_that_intervals_of_plain_probes_hold_the_trace_as_often_as_they_say(distribution: str) -> None:
    for values in (FLAT, DECAYING):
        a, exact = with_spectrum(values), float(values.sum())
        estimates = [trace(a, 20, distribution=distribution, seed=s) for s in range(200)]  # type: ignore[arg-type]
        # nominally 190 times; the bounds are three binomial deviations away, since quadratic forms are slightly skew
        held = sum(low <= exact <= high for low, high in (e.interval(0.95) for e in estimates))
        assert 180 <= held <= 198
        held = sum(low <= exact <= high for low, high in (e.interval(0.5) for e in estimates))
        assert 80 <= held <= 120
        spread = float(torch.tensor([float(e) for e in estimates]).std())
        error = sum(e.standard_error for e in estimates) / 200
        assert error == pytest.approx(spread, rel=0.15)  # deviations: 0.05 of the spread, 0.02 of the error


def test_that_errors_of_xtrace_are_of_the_right_size_though_too_small() -> None:
    # samples share their basis: on these spectra errors are 0.6 to 0.8 of what they should be, and 80 to 90 % of the
    # intervals hold the trace. Bounds are three deviations away, which are 5 % of the former and 2 to 3 of the latter
    for values in (FLAT, DECAYING, torch.linspace(1, 2, 60, dtype=DOUBLE)):
        a, exact = with_spectrum(values), float(values.sum())
        estimates = [trace(a, 18, method="xtrace", seed=s) for s in range(200)]
        held = sum(low <= exact <= high for low, high in (e.interval(0.95) for e in estimates))
        assert 0.72 <= held / 200 <= 0.96
        spread = float(torch.tensor([float(e) for e in estimates]).std())
        error = sum(e.standard_error for e in estimates) / 200
        assert 0.51 <= error / spread <= 0.95


def test_that_xtrace_spreads_at_most_half_as_much_where_the_spectrum_decays() -> None:
    a = with_spectrum(DECAYING)
    spreads = {
        method: float(torch.tensor([float(trace(a, 18, method=method, seed=s)) for s in range(100)]).std())
        for method in ("hutchinson", "xtrace")
    }
    assert spreads["xtrace"] <= spreads["hutchinson"] / 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("rank", [0, 1, 3, 5])
def test_that_xtrace_is_exact_for_ranks_that_its_basis_holds(rank: int, dtype: torch.dtype) -> None:
    # as long as all probes but one still span the range
    roots = normal(rank, 30, dtype=dtype)
    # here rounding does not hide the low rank; only 3 probes, since signs in five dimensions are often dependent
    diagonal = torch.tensor([1.0, 2.0, 3.0][:rank] + [0.0] * (30 - min(rank, 3)), dtype=dtype)
    for matrix in (roots.mT @ roots, diagonal.diag()):
        estimate = trace(TensorLinearOperator(matrix), 12, method="xtrace")
        size = float(matrix.trace())
        assert abs(float(estimate) - size) <= 1e3 * torch.finfo(dtype).eps * size
        assert estimate.standard_error <= 1e3 * torch.finfo(dtype).eps * size


def test_that_estimates_tell_mean_error_and_cost_of_their_samples() -> None:
    a = with_spectrum(FLAT)
    estimate = trace(a, 23)
    assert estimate.products == 23 and estimate.samples.shape == (23,) and estimate.samples.dtype == DOUBLE
    assert estimate.value == pytest.approx(float(estimate.samples.mean()), rel=1e-12)
    assert estimate.standard_error == pytest.approx(float(estimate.samples.std()) / 23**0.5, rel=1e-12)
    assert trace(a, 1).standard_error != trace(a, 1).standard_error  # nan for a single sample
    exact = trace(a, method="exact")
    assert (exact.standard_error, exact.products, exact.interval()) == (0, 40, (exact.value, exact.value))
    assert trace(a, 12, method="xtrace").products == 12


def test_that_intervals_are_those_of_students_t() -> None:
    # t of three degrees of freedom has its 97.5 % quantile at 3.182
    estimate = Estimate.of(torch.tensor([1.0, 2.0, 3.0, 4.0]), 4)
    half = 3.182446 * (5 / 3) ** 0.5 / 2
    assert estimate.interval(0.95) == pytest.approx((2.5 - half, 2.5 + half), rel=1e-6)
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        estimate.interval(95)


@pytest.mark.parametrize(("method", "probes"), [("hutchinson", 1), ("xtrace", 2)])
def test_that_a_single_sample_has_a_value_but_no_interval_and_twice_the_products_have_one(method, probes) -> None:
    a = with_spectrum(1 + 0.5 * FLAT)
    single = trace(a, probes, method=method)
    assert float(single) == single.value == float(single.samples)
    assert str(single).endswith(" ± nan")
    with pytest.raises(ValueError, match=f"no interval; take {2 * probes} products or more instead of {probes}: more"):
        single.interval()
    low, high = trace(a, 2 * probes, method=method).interval()
    assert low < high


def test_that_rtol_stops_when_the_error_is_reached_and_after_ten_probes_at_least() -> None:
    a = with_spectrum(1 + 0.5 * FLAT)
    stopped = trace(a, 10_000, rtol=0.02)
    assert 10 < stopped.products < 10_000
    assert stopped.standard_error <= 0.02 * stopped.value
    earlier = stopped.samples[:-10]  # it checks every ten probes, and ten earlier the error was too large
    assert float(earlier.std()) / len(earlier) ** 0.5 > 0.02 * float(earlier.mean())
    assert trace(a, 10_000, rtol=10.0).products == 10
    assert trace(a, 7, rtol=10.0).products == 7
    assert trace(a, 35, rtol=1e-6).products == 35


def test_that_a_seed_fixes_the_result_however_many_probes_are_asked_for() -> None:
    a = with_spectrum(FLAT)
    one, more = trace(a, 23, seed=3), trace(a, 40, seed=3)
    assert torch.equal(one.samples, trace(a, 23, seed=3).samples)
    # products of matrices of different widths round differently
    torch.testing.assert_close(one.samples, more.samples[:23])
    assert not torch.equal(one.samples, trace(a, 23, seed=4).samples)
    source = generator(3)
    first, second = trace(a, 23, seed=source), trace(a, 17, seed=source)  # the second call continues the generator
    torch.testing.assert_close(torch.cat([first.samples, second.samples]), trace(a, 40, seed=generator(3)).samples)


def test_that_probes_and_dropout_draw_from_different_streams() -> None:
    # if signs repeated the masks of the inputs, which are positive, an input of 256 numbers would have quadratic forms
    # 128 times too large with one of the 20 probes
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(256, 1, bias=False))
    data = torch.rand(20, 256, generator=generator(5)), torch.zeros(20, 1)
    hessian = RiemannianHessian(model, nn.MSELoss(), model.parameters(), data)
    # one eigenvalue dominates: the mean of 20 squares of normal numbers has the deviation sqrt(2 / 20) = 0.32
    assert float(trace(hessian, 20)) == pytest.approx(float(trace(hessian, method="exact")), rel=1)


@pytest.mark.parametrize("make", [network, mixed_network])
def test_that_traces_of_layers_are_those_of_their_blocks_and_sum_to_the_whole(make) -> None:  # type: ignore[no-untyped-def]
    model = make()
    params = list(model.parameters())
    hessian = RiemannianHessian(model, nn.MSELoss(), params, examples())
    exact = layer_traces(hessian, method="exact")
    assert list(exact) == [name for name, _ in model.named_parameters()]
    for name, p in model.named_parameters():
        alone = RiemannianHessian(model, nn.MSELoss(), [p], examples())
        assert float(exact[name]) == pytest.approx(float(dense(alone).trace()), rel=1e-10)
    assert sum(map(float, exact.values())) == pytest.approx(float(trace(hessian, method="exact")), rel=1e-12)
    for options in ({}, {"rtol": 0.05}, {"seed": 7, "distribution": "normal"}):
        whole, layers = trace(hessian, 60, **options), layer_traces(hessian, 60, **options)  # type: ignore[arg-type]
        assert sum(map(float, layers.values())) == pytest.approx(float(whole), rel=1e-12)
        torch.testing.assert_close(sum(t.samples for t in layers.values()), whole.samples)
    for name, estimate in layer_traces(hessian, 400).items():
        assert abs(float(estimate) - float(exact[name])) <= 3.5 * estimate.standard_error


def test_that_traces_of_modules_are_the_sums_of_those_of_their_parameters() -> None:
    model = network()
    hessian = RiemannianHessian(model, nn.MSELoss(), model.parameters(), examples())
    for options in ({"method": "exact"}, {"probes": 20}):
        parameters, modules = (layer_traces(hessian, by=by, **options) for by in ("parameter", "module"))  # type: ignore[arg-type]
        assert list(modules) == ["0", "2"]
        for name, module in modules.items():
            of_weight, of_bias = (parameters[f"{name}.{kind}"] for kind in ("weight", "bias"))
            assert float(module) == pytest.approx(float(of_weight) + float(of_bias), rel=1e-12)
            if "probes" in options:
                torch.testing.assert_close(module.samples, of_weight.samples + of_bias.samples)
    alone = RiemannianHessian(model[0], lambda f, y: f.square().mean(), model[0].parameters(), examples())
    assert list(layer_traces(alone, 2, by="module")) == [""]  # the model itself
    with pytest.raises(ValueError, match="by must be 'parameter' or 'module', got 'layer'"):
        layer_traces(hessian, by="layer")  # type: ignore[arg-type]


def test_that_a_parametrized_weight_belongs_to_its_module() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)).double()
    hessian = RiemannianHessian(model, nn.MSELoss(), model.parameters(), examples())
    traces = layer_traces(hessian, method="exact", by="module")
    assert list(traces) == ["0", "2"]
    alone = RiemannianHessian(model, nn.MSELoss(), model[0].parameters(), examples())
    assert float(traces["0"]) == pytest.approx(float(trace(alone, method="exact")), rel=1e-10)
    alone = RiemannianHessian(model[0], lambda f, y: f.square().mean(), model[0].parameters(), examples())
    assert list(layer_traces(alone, 2, by="module")) == [""]


def test_that_layers_that_share_a_name_or_have_none_are_refused() -> None:
    first, second = nn.Linear(4, 5).double(), nn.Linear(5, 3).double()

    def hessian(params) -> RiemannianHessian:  # type: ignore[no-untyped-def]
        return RiemannianHessian(lambda x: second(first(x).tanh()), nn.MSELoss(), params, examples())

    both = hessian([*first.named_parameters(), *second.named_parameters()])
    for by in ("parameter", "module"):
        with pytest.raises(ValueError, match=r"have the name 'weight', and would .* as \('encoder.weight', parameter"):
            layer_traces(both, by=by)  # type: ignore[arg-type]
    nameless = hessian([*first.parameters(), *second.parameters()])
    assert len(layer_traces(nameless, 2)) == 4
    for operator in (nameless, with_spectrum(FLAT)):
        with pytest.raises(ValueError, match="by='module' needs names, but parameter 0 has none"):
            layer_traces(operator, by="module")
    # a name is one, whatever it is
    named = hessian([("parameter 0.weight", first.weight), ("parameter 1.weight", second.weight)])
    assert list(layer_traces(named, 2, by="module")) == ["parameter 0", "parameter 1"]


def test_that_any_operator_of_curvlinops_has_layers() -> None:
    a = with_spectrum(FLAT)
    assert float(layer_traces(a, method="exact")["parameter 0"]) == pytest.approx(float(FLAT.sum()))


BAD = [
    ({"probes": 0}, "probes must be at least 1, got 0"),
    ({"rtol": 0.0}, "rtol must be positive, got 0"),
    ({"rtol": float("nan")}, "rtol must be positive, got nan"),
    ({"distribution": "uniform"}, "'rademacher' or 'normal', got 'uniform'"),
    ({"method": "lanczos"}, "method must be"),
    ({"method": "xtrace", "rtol": 0.1}, "rtol stops method='hutchinson' only"),
    ({"method": "xtrace", "probes": 7}, "probes must be even"),
    ({"method": "xtrace", "probes": 40}, "less than the operator's size 40"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[str(options) for options, _ in BAD])
def test_that_bad_options_are_refused(options, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        trace(with_spectrum(FLAT), **options)


def test_that_layers_and_rectangular_operators_are_refused_what_they_cannot_do() -> None:
    with pytest.raises(ValueError, match="'hutchinson' or 'exact', got 'xtrace'"):
        layer_traces(with_spectrum(FLAT), method="xtrace")  # type: ignore[arg-type]
    for method in ("hutchinson", "xtrace", "exact"):
        with pytest.raises(ValueError, match=r"square, but its shape is \(2, 3\)"):
            trace(TensorLinearOperator(torch.ones(2, 3)), 2, method=method)  # type: ignore[arg-type]
