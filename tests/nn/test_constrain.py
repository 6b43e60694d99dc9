"""That constrained modules stay modules."""

from __future__ import annotations

import copy
import io
import warnings

import geoopt
import pytest
import torch
from torch import nn

import rsam
from rsam.geometry import KernelSphere, KernelStiefel


def convnet() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 3)
    )


def on_manifold(module: nn.Module) -> dict[str, geoopt.ManifoldParameter]:
    return {n: p for n, p in module.named_parameters() if isinstance(p, geoopt.ManifoldParameter)}


def assert_on_manifold(p: geoopt.ManifoldParameter) -> None:
    ok, reason = p.manifold.check_point_on_manifold(p.detach(), explain=True)
    assert ok, reason


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (nn.Conv2d, {"0.weight", "3.weight"}),
        ((nn.Conv2d, nn.Linear), {"0.weight", "3.weight", "5.weight"}),
        ("3.weight", {"3.weight"}),
        ("[05].weight", {"0.weight", "5.weight"}),
    ],
)
def test_that_it_constrains_what_is_chosen(where, names) -> None:
    model = convnet()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    assert rsam.nn.constrain(model, KernelSphere(), where) is model
    assert on_manifold(model).keys() == names
    for name, p in model.named_parameters():
        if name in names:
            rows = before[name].flatten(1)
            torch.testing.assert_close(p.detach().flatten(1), rows / rows.norm(dim=1, keepdim=True))
            assert p.manifold.ndim == p.dim()
        else:
            assert torch.equal(p, before[name])


def test_that_a_single_layer_takes_one_line() -> None:
    linear = rsam.nn.constrain(nn.Linear(4, 6, bias=False), geoopt.EuclideanStiefel())
    assert_on_manifold(linear.weight)
    x = torch.randn(3, 4)
    torch.testing.assert_close(linear(x), x @ linear.weight.detach().T)
    conv = rsam.nn.constrain(nn.Conv1d(4, 6, 3), KernelStiefel())
    assert_on_manifold(conv.weight)


def test_that_a_single_tensor_can_be_named_by_itself() -> None:
    model = convnet()
    rsam.nn.constrain(model, KernelSphere(), model[3].weight)
    assert on_manifold(model).keys() == {"3.weight"}


@pytest.mark.parametrize("manifold", [KernelSphere(), KernelStiefel(), KernelStiefel(canonical=True)])
def test_that_kernels_of_every_shape_fit(manifold) -> None:
    for out, inside in ((8, 2), (8, 1), (64, 2)):  # the last two are wide for Stiefel
        conv = rsam.nn.constrain(nn.Conv2d(inside, out, 3), manifold)
        assert conv.weight.shape == (out, inside, 3, 3)
        assert conv.weight.is_contiguous()
        assert_on_manifold(conv.weight)


def test_that_copies_conversions_and_checkpoints_keep_the_manifold() -> None:
    model = rsam.nn.constrain(convnet(), KernelSphere(), nn.Conv2d)
    names = on_manifold(model).keys()
    assert model.state_dict().keys() == convnet().state_dict().keys()

    twin = copy.deepcopy(model)
    assert on_manifold(twin).keys() == names
    assert twin[0].weight is not model[0].weight
    double = copy.deepcopy(model).to(torch.float64)
    assert on_manifold(double).keys() == names

    with torch.no_grad():
        rsam.RSAM(model.parameters(), lr=0.1)  # an optimizer sees the very parameters
        other = rsam.nn.constrain(convnet(), KernelSphere(), nn.Conv2d)
        other[0].weight.copy_(other[0].weight.roll(1, 0))
    buffer = io.BytesIO()
    torch.save(other.state_dict(), buffer)
    buffer.seek(0)
    model.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(model[0].weight, other[0].weight)  # bitwise: it was on the manifold
    assert on_manifold(model).keys() == names


@pytest.mark.parametrize("assign", [False, True])
def test_that_weights_from_elsewhere_are_projected_on_loading(assign) -> None:
    model, plain = rsam.nn.constrain(convnet(), KernelSphere(), nn.Conv2d), convnet()
    with pytest.warns(UserWarning, match=r"'0\.weight' was not on .* and was projected"):
        copy.deepcopy(model).load_state_dict(plain.state_dict(), assign=assign)
    with pytest.warns(UserWarning, match="projected"):
        model.load_state_dict(plain.state_dict(), assign=assign)
    assert on_manifold(model).keys() == {"0.weight", "3.weight"}
    for p in on_manifold(model).values():
        assert_on_manifold(p)
    rows = plain[0].weight.detach().flatten(1)
    torch.testing.assert_close(model[0].weight.detach().flatten(1), rows / rows.norm(dim=1, keepdim=True))


@pytest.mark.xfail(strict=True, reason="geoopt 0.5.1: load_state_dict accepts a tensor off the manifold")
def test_geoopt_refuses_a_point_off_the_manifold() -> None:
    module = nn.Module()
    module.weight = geoopt.ManifoldParameter(torch.tensor([1.0, 0.0]), manifold=geoopt.Sphere())
    module.load_state_dict({"weight": torch.tensor([3.0, 4.0])})
    assert_on_manifold(module.weight)


def test_that_tied_and_frozen_weights_stay_so() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = nn.Linear(4, 6)
            self.decode = nn.Linear(4, 6)
            self.decode.weight = self.encode.weight

    model = Tied()
    model.encode.weight.requires_grad_(False)
    rsam.nn.constrain(model, geoopt.EuclideanStiefel(), "encode.weight")
    assert model.decode.weight is model.encode.weight
    assert not model.encode.weight.requires_grad


def test_that_a_recurrent_layer_uses_the_constrained_weight() -> None:
    rnn = nn.RNN(3, 4)
    x = torch.randn(5, 2, 3)
    before = rnn(x)[0]
    rsam.nn.constrain(rnn, geoopt.EuclideanStiefel(), "weight_hh_l0")
    assert_on_manifold(rnn.weight_hh_l0)
    assert not torch.allclose(rnn(x)[0], before)


def _spectral() -> nn.Module:
    return nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))


def _weight_norm() -> nn.Module:
    with warnings.catch_warnings():  # torch deprecates it in favour of the parametrization above
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(nn.Linear(3, 3))


def _zero_row() -> nn.Module:
    linear = nn.Linear(3, 3)
    nn.init.zeros_(linear.weight[1])
    return linear


@pytest.mark.parametrize(
    ("module", "manifold", "where", "reason"),
    [
        (nn.Linear(3, 3), geoopt.Sphere(), nn.Conv2d, "matches no parameter of Linear"),
        (nn.Linear(3, 3), geoopt.Sphere(), "weights", r"matches no parameter.*\['weight', 'bias'\]"),
        (nn.Linear(3, 2), geoopt.EuclideanStiefel(), "weight", r"shape\[-1\] <= shape\[-2\]"),
        (nn.Linear(1, 3), geoopt.Sphere(), "weight", "isolated points"),
        (nn.Linear(3, 3), KernelSphere(), "bias", "requires more than"),
        (_zero_row(), geoopt.Sphere(), "weight", "no nearest point"),
        (_spectral(), geoopt.Sphere(), nn.Linear, "parametrized already"),
        (_weight_norm(), geoopt.Sphere(), "weight_v", "computes its weight"),
        (nn.LazyLinear(3), geoopt.Sphere(), "weight", "no shape yet"),
        (nn.BatchNorm2d(4), geoopt.Sphere(), "weight", "scales the features"),
        (nn.InstanceNorm2d(4, affine=True), geoopt.Sphere(), "weight", "scales the features"),
        (nn.Embedding(4, 3, max_norm=0.5), geoopt.Sphere(), "weight", "max_norm"),
        (nn.Embedding(4, 3, sparse=True), geoopt.Sphere(), "weight", "sparse"),
        (nn.ConvTranspose2d(3, 4, 2), KernelSphere(), "weight", "transposed convolution"),
        (nn.Linear(3, 3), geoopt.Sphere(), nn.Parameter(torch.ones(3)), r"tensor of shape \(3,\) matches no"),
        (rsam.nn.constrain(nn.Linear(3, 3), geoopt.Sphere()), geoopt.Sphere(), "weight", "already"),
    ],
)
def test_that_what_cannot_be_is_refused_with_the_reason(module, manifold, where, reason) -> None:
    before = dict(module.named_parameters())
    with pytest.raises(ValueError, match=reason):
        rsam.nn.constrain(module, manifold, where)
    after = dict(module.named_parameters())
    assert before.keys() == after.keys()
    assert all(after[n] is p for n, p in before.items())
