"""That after any failure the weights are as before the step."""

from __future__ import annotations

import geoopt
import pytest
import torch

import rsam
from tests.optim.problems import closure_of, equal, manifold_points, network, robust


def _snapshot(params):
    return [p.detach().clone() for p in params]


def _unchanged(params, snapshot) -> bool:
    return all(torch.equal(p, s) for p, s in zip(params, snapshot, strict=True))


def _all_kinds(**options):
    params = list(manifold_points().values())
    params.append(manifold_points(seed=1)["sphere"])  # in a stack with the first
    opt = rsam.RSAM(params, lr=0.01, momentum=0.9, **options)
    return params, opt, robust(params)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("which", [1, 2])
def test_an_exception_in_either_pass_leaves_the_weights_bitwise(which, error) -> None:
    params, opt, loss = _all_kinds()
    opt.step(closure_of(opt, loss))
    before = _snapshot(params)
    calls = []

    def closure():
        calls.append(None)
        value = closure_of(opt, loss)()
        if len(calls) == which:
            raise error("stop")
        return value

    with pytest.raises(error):
        opt.step(closure)
    assert _unchanged(params, before)
    opt.step(closure_of(opt, loss))  # the optimizer still works
    assert not _unchanged(params, before)


@pytest.mark.parametrize("rho", [0.0, 0.1])
def test_an_exception_in_the_base_optimizer_leaves_the_weights_bitwise(rho) -> None:
    class Half(torch.optim.SGD):
        def step(self, closure=None):
            with torch.no_grad():
                for p in self.param_groups[0]["params"]:  # parameters without a gradient too
                    p.add_(1)
            raise OSError("half a step")

    model, loss = network()
    model.register_parameter("unused", torch.nn.Parameter(torch.ones(2)))
    opt = rsam.RSAM(model.parameters(), Half, lr=0.1, rho=rho)
    before = _snapshot(model.parameters())
    with pytest.raises(OSError, match="half"):
        opt.step(closure_of(opt, loss))
    assert _unchanged(model.parameters(), before)


@pytest.mark.parametrize(("place", "bad"), [(3, float("nan")), (0, float("inf"))], ids=["alone", "stacked"])
@pytest.mark.parametrize("which", [1, 2])
@pytest.mark.parametrize("policy", ["raise", "skip"])
@pytest.mark.parametrize("radius", ["product", "parameter", "point"])
def test_a_gradient_that_is_not_finite_never_reaches_the_weights(radius, policy, which, place, bad) -> None:
    params, opt, loss = _all_kinds(nonfinite=policy, radius=radius)
    before = _snapshot(params)
    calls = []

    def closure():
        calls.append(None)
        value = closure_of(opt, loss)()
        if len(calls) == which:
            params[place].grad[0] = bad
        return value

    if policy == "raise":
        with pytest.raises(rsam.NotFinite, match=rf"parameter {place} of group 0 .*not finite"):
            opt.step(closure)
    else:
        opt.step(closure)
        assert len(calls) == which  # no second pass after a first one that was not finite
        assert opt.sharpness is None
    assert _unchanged(params, before)
    opt.step(closure_of(opt, loss))
    assert not _unchanged(params, before)


@pytest.mark.parametrize("how", ["unfrozen", "added"])
def test_that_a_parameter_that_joins_between_the_halves_gets_no_gradient_that_is_not_finite(how) -> None:
    w, joining = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    joining.requires_grad_(how == "added")
    opt = rsam.RSAM([w, joining] if how == "unfrozen" else [w], torch.optim.SGD, lr=0.1)
    w.square().sum().backward()
    opt.first_step(zero_grad=True)
    if how == "added":
        opt.add_param_group({"params": [joining]})
    joining.requires_grad_()
    (w.square().sum() + torch.nan * joining.sum()).backward()
    with pytest.raises(rsam.NotFinite, match="the gradient of parameter"):
        opt.second_step()
    assert equal([w, joining], [torch.ones(2)] * 2)


@pytest.mark.parametrize("radius", ["product", "parameter", "point"])
def test_a_norm_that_overflows_on_a_manifold_says_so(radius) -> None:
    x = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=geoopt.Sphere())
    opt = rsam.RSAM([x], lr=0.1, radius=radius)
    x.grad = torch.tensor([1e30, -2e30])
    with pytest.raises(rsam.NotFinite, match="the norm of the gradient overflows"):
        opt.first_step()
    assert x.tolist() == torch.tensor([0.6, 0.8]).tolist()


def test_a_norm_that_overflows_says_so() -> None:
    w = torch.nn.Parameter(torch.ones(2))
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.1)
    w.grad = torch.full((2,), 1e30)
    with pytest.raises(rsam.NotFinite, match="overflows"):
        opt.first_step()
    assert torch.equal(w.detach(), torch.ones(2))


@pytest.mark.skipif(torch.__version__ < "2.6", reason="optimizers take names from torch 2.6 on")
def test_named_parameters_are_named_in_errors() -> None:
    model, _ = network()
    opt = rsam.RSAM(model.named_parameters(), torch.optim.SGD, lr=0.1)
    for p in model.parameters():
        p.grad = torch.full_like(p, float("nan"))
    with pytest.raises(rsam.NotFinite, match=r"'0\.weight'"):
        opt.first_step()


def test_a_parameter_outside_the_graph_in_either_pass() -> None:
    """A parameter may have a gradient in one pass only; others raise KeyError then, or leave it perturbed."""
    a, b, c = (torch.nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(3))
    sphere = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=geoopt.Sphere())
    opt = rsam.RSAM([a, b, c, sphere], lr=0.1, rho=0.3)
    used = iter([(a, b, sphere), (b, c)])

    def closure():
        opt.zero_grad()
        value = sum((p**4).sum() for p in next(used))
        value.backward()
        return value

    opt.step(closure)
    assert torch.equal(a.detach(), torch.tensor([1.0, 2.0]))  # put back, without a gradient to step along
    assert torch.equal(sphere.detach(), torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(c.detach(), torch.tensor([1.0, 2.0]) * 1 - 0.1 * torch.tensor([4.0, 32.0]))
    assert not torch.equal(b.detach(), torch.tensor([1.0, 2.0]))


def test_frozen_and_shared_parameters() -> None:
    model, loss = network()
    model[0].weight.requires_grad_(False)
    frozen = model[0].weight.detach().clone()
    opt = rsam.RSAM(model.parameters(), torch.optim.SGD, lr=0.1)
    opt.step(closure_of(opt, loss))
    assert torch.equal(model[0].weight, frozen)

    shared = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    alone = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    for p, twice in ((shared, lambda: (shared * shared.exp()).sum()), (alone, lambda: (alone * alone.exp()).sum())):
        opt = rsam.RSAM([p], torch.optim.SGD, lr=0.1)
        opt.step(closure_of(opt, twice))
    assert torch.equal(shared, alone)


def test_a_zero_gradient_perturbs_nothing_and_steps_nowhere() -> None:
    params, opt, _ = _all_kinds()
    before = _snapshot(params)
    opt.step(closure_of(opt, lambda: sum((0 * p.abs() ** 2).sum() for p in params)))
    for name, p, s in zip([*manifold_points(), "sphere"], params, before, strict=True):
        # the base optimizer's retraction of a zero step may round
        torch.testing.assert_close(p.detach(), s, rtol=0, atol=1e-12, msg=name)


def test_sparse_gradients_are_refused_by_name() -> None:
    embedding = torch.nn.Embedding(5, 2, sparse=True)
    opt = rsam.RSAM(embedding.parameters(), torch.optim.SGD, lr=0.1)
    before = embedding.weight.detach().clone()
    with pytest.raises(RuntimeError, match=r"sparse.*parameter 0 of group 0"):
        opt.step(closure_of(opt, lambda: embedding(torch.tensor([1])).sum()))
    assert torch.equal(embedding.weight, before)


def test_an_exception_on_the_way_back_leaves_the_weights_bitwise() -> None:
    """A gradient that becomes sparse in the second pass is noticed only after the weights are perturbed."""
    w = torch.nn.Parameter(torch.ones(3, 2))
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.1)
    w.grad = torch.ones(3, 2)
    opt.first_step(zero_grad=True)
    assert not torch.equal(w.detach(), torch.ones(3, 2))
    w.grad = torch.ones(3, 2).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        opt.second_step()
    assert torch.equal(w.detach(), torch.ones(3, 2))


def test_misuse_is_explained() -> None:
    w = torch.nn.Parameter(torch.ones(2))
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.1)
    with pytest.raises(RuntimeError, match="needs a closure"):
        opt.step()
    with pytest.raises(RuntimeError, match="without first_step"):
        opt.second_step()
    w.grad = torch.ones(2)
    opt.first_step()
    with pytest.raises(RuntimeError, match="twice"):
        opt.first_step()
    opt.restore()
    assert torch.equal(w.detach(), torch.ones(2))
    opt.restore()  # does nothing


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": -1.0}, "must not be negative"),
        ({"rho": float("inf")}, "rho must be finite"),
        ({"transport": "parallel"}, "transport must be one of"),
        ({"ascent": "exp"}, "ascent must be one of"),
        ({"nonfinite": "ignore"}, "nonfinite must be one of"),
    ],
)
def test_options_out_of_range(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        rsam.RSAM([torch.nn.Parameter(torch.ones(2))], torch.optim.SGD, lr=0.1, **options)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("transport", "parallel"),
        ("ascent", "exp"),
        ("direction", "momentun"),
        ("radius", "points"),
        ("nonfinite", "ignore"),
        ("every", 0),
        ("every", "2"),
    ],
)
def test_options_set_out_of_range_between_steps(option, value) -> None:
    w = torch.nn.Parameter(torch.ones(2))
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.1)
    closure = closure_of(opt, lambda: w.square().sum())
    opt.step(closure)
    setattr(opt, option, value)
    before = w.detach().clone()
    with pytest.raises(ValueError, match=f"{option} must be .* got {value!r}"):
        opt.step(closure)
    assert torch.equal(w.detach(), before)


@pytest.mark.parametrize("rho", [-0.1, float("nan"), float("inf")])
def test_rho_set_out_of_range_between_steps(rho) -> None:
    w = torch.nn.Parameter(torch.ones(2))
    opt = rsam.RSAM([w], torch.optim.SGD, lr=0.1)
    closure = closure_of(opt, lambda: w.square().sum())
    opt.step(closure)
    opt.param_groups[0]["rho"], before = rho, w.detach().clone()
    with pytest.raises(ValueError, match="must not be negative"):
        opt.step(closure)
    assert torch.equal(w.detach(), before)


@pytest.mark.parametrize(
    ("base", "better"), [(torch.optim.SGD, "RiemannianSGD"), (torch.optim.AdamW, "RiemannianAdam")]
)
def test_a_base_that_does_not_retract_is_refused_on_a_manifold(base, better) -> None:
    sphere = manifold_points()["sphere"]
    with pytest.raises(ValueError, match=rf"parameter 0 of group 0 .*Sphere.* use rsam.optim.{better}"):
        rsam.RSAM([sphere], base, lr=0.1)
    opt = rsam.RSAM([torch.nn.Parameter(torch.ones(2))], base, lr=0.1)
    with pytest.raises(ValueError, match="off its manifold"):
        opt.add_param_group({"params": [sphere]})
    assert len(opt.param_groups) == len(opt.base_optimizer.param_groups) == 1
    rsam.RSAM([manifold_points()["plain"]], base, lr=0.1)  # a Euclidean manifold is plain


def test_adaptive_on_a_manifold_is_refused() -> None:
    x = manifold_points()["sphere"]
    with pytest.raises(ValueError, match=r"adaptive=True .*no manifold's metric"):
        rsam.RSAM([x], lr=0.1, adaptive=True)
    opt = rsam.RSAM([x], lr=0.1)
    closure = closure_of(opt, lambda: (x**4).sum())
    opt.step(closure)
    opt.param_groups[0]["adaptive"], before = True, x.detach().clone()
    with pytest.raises(ValueError, match=r"adaptive=True .*no manifold's metric"):
        opt.step(closure)
    assert torch.equal(x.detach(), before)


@pytest.mark.parametrize(
    "base",
    [
        torch.optim.LBFGS,
        torch.optim.Adadelta,
        torch.optim.SparseAdam,
        geoopt.optim.RiemannianLineSearch,
        geoopt.optim.SparseRiemannianAdam,
        lambda params: geoopt.optim.SparseRiemannianSGD(params, lr=0.1),
    ],
)
def test_bases_that_cannot_serve_are_refused(base) -> None:
    with pytest.raises(ValueError, match="cannot be the base"):
        rsam.RSAM([torch.nn.Parameter(torch.ones(2, 2))], base)


class _Own(geoopt.Sphere):
    """User's manifold with geoopt's methods, not registered, whatever its base classes."""


rsam.geometry.register(_Own)(rsam.geometry.Geometry)


class _WithoutTransport(_Own):
    def transp(self, x, y, v):
        raise NotImplementedError


class _WithoutInner(_Own):
    def inner(self, x, u, v=None, *, keepdim=False):
        raise NotImplementedError


class _Rounding(_Own):
    def inner(self, x, u, v=None, *, keepdim=False):
        return super().inner(x, u, v, keepdim=keepdim) - 1e-20  # as where a metric subtracts


@pytest.mark.parametrize("radius", ["product", "parameter", "point"])
def test_that_a_vanishing_norm_whose_square_is_negative_by_rounding_is_zero(radius) -> None:
    x = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=_Rounding())
    plain = torch.nn.Parameter(torch.zeros(1))
    opt = rsam.RSAM([x, plain], lr=0.1, rho=0.5, radius=radius)
    x.grad, plain.grad = torch.zeros(2), torch.ones(1)
    opt.first_step()
    assert opt.grad_norm == 1
    assert plain.item() == 0.5
    torch.testing.assert_close(x.detach(), torch.tensor([0.6, 0.8]))


@pytest.mark.parametrize(("cls", "operation"), [(_WithoutTransport, "transport"), (_WithoutInner, "squared_norm")])
def test_an_operation_missing_on_the_way_back_names_the_parameter(cls, operation) -> None:
    plain = torch.nn.Parameter(torch.ones(2))
    own = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=cls())
    opt = rsam.RSAM([plain, own], lr=0.1)
    with pytest.raises(rsam.geometry.UnsupportedOperation, match=rf"parameter 1 of group 0 .*has no {operation}"):
        opt.step(closure_of(opt, lambda: (own**4).sum() + plain.sum()))
    assert torch.equal(own.detach(), torch.tensor([0.6, 0.8]))


def test_an_operation_missing_in_the_base_names_the_parameter() -> None:
    own = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=_WithoutTransport())
    opt = rsam.optim.RiemannianSGD([torch.nn.Parameter(torch.ones(2)), own], lr=0.1, momentum=0.9)
    with pytest.raises(rsam.geometry.UnsupportedOperation, match=r"parameter 1 of group 0 .*has no transport"):
        opt.step(closure_of(opt, lambda: (own**4).sum()))


def test_a_users_own_manifold_needs_no_registration() -> None:
    own = geoopt.ManifoldParameter(torch.tensor([0.6, 0.8]), manifold=_Own())
    opt = rsam.RSAM([own], lr=0.1, momentum=0.9)
    for _ in range(50):
        opt.step(closure_of(opt, lambda: -own[0]))
    assert own[0] > 0.99


def test_an_operation_that_is_missing_names_manifold_parameter_and_operation() -> None:
    params = manifold_points()
    chosen = [params["sphere"], params["birkhoff"]]
    opt = rsam.RSAM(chosen, lr=0.1, ascent="exponential")
    before = _snapshot(chosen)
    with pytest.raises(rsam.geometry.UnsupportedOperation, match=r"parameter 1 of group 0 .*no exponential"):
        opt.step(closure_of(opt, robust(chosen)))
    assert _unchanged(chosen, before)
    with pytest.warns(UserWarning, match="not fully implemented"):
        stein = geoopt.SymmetricPositiveDefinite("SM")
    spd = geoopt.ManifoldParameter(torch.eye(2), manifold=stein)
    with pytest.raises(rsam.geometry.UnsupportedOperation, match=r"parameter 0 .*default_metric='SM'"):
        rsam.RSAM([spd], geoopt.optim.RiemannianSGD, lr=0.1)
