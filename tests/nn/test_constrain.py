"""That constrained modules keep working as modules."""

from __future__ import annotations

import copy
import io
import pickle
import warnings

import geoopt
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

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
        ("*.weight", {"0.weight", "3.weight", "5.weight"}),  # without that of the norm layer
        (["0.weight", nn.Linear], {"0.weight", "5.weight"}),
        (lambda name, p: p.dim() > 2 and not name.startswith("0"), {"3.weight"}),
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


def test_that_the_matrices_of_gates_are_one_matrix_each_of_which_shrinks() -> None:
    torch.manual_seed(0)
    weight = rsam.nn.constrain(nn.GRU(8, 4), KernelStiefel(), "weight_hh_l0").weight_hh_l0.detach()
    torch.testing.assert_close(torch.linalg.svdvals(weight), torch.ones(4))
    gates = weight.unflatten(0, (3, 4))
    assert (torch.linalg.svdvals(gates) < 1).all()
    assert not geoopt.EuclideanStiefel().check_point_on_manifold(gates)  # as a parameter of this shape would be


def test_that_a_normal_embedding_ends_at_the_edge_of_the_ball_and_a_small_one_stays() -> None:
    torch.manual_seed(0)
    embedding, small = nn.Embedding(100, 5), nn.Embedding(100, 5)
    outside = embedding.weight.detach().norm(dim=1) > 1
    assert outside.float().mean() > 0.9
    norms = rsam.nn.constrain(embedding, geoopt.PoincareBall()).weight.detach().norm(dim=1)
    assert (norms[outside] > 0.99).all()
    nn.init.normal_(small.weight, std=1e-3)
    before = small.weight.detach().clone()
    assert torch.equal(rsam.nn.constrain(small, geoopt.PoincareBall()).weight, before)


@pytest.mark.parametrize("exclude", ["3.*", nn.Linear, lambda name, p: len(p) == 8])
def test_that_what_is_excluded_stays_plain(exclude) -> None:
    model = rsam.nn.constrain(convnet(), KernelSphere(), "*.weight", exclude=[exclude, "5.bias"])
    left = {"0.weight", "3.weight", "5.weight"} - ({"5.weight"} if exclude is nn.Linear else {"3.weight"})
    assert on_manifold(model).keys() == left


def test_that_patterns_pass_over_norm_layers_of_other_libraries() -> None:
    class LlamaRMSNorm(nn.Module):  # as in transformers, without a base class of torch's norms
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

    model = nn.Sequential(nn.Linear(4, 4), LlamaRMSNorm(), nn.PReLU(4))
    rsam.nn.constrain(model, geoopt.Sphere(), "*.weight")
    assert on_manifold(model).keys() == {"0.weight"}
    with pytest.raises(ValueError, match=r"1\.weight .* scales the features of a LlamaRMSNorm"):
        rsam.nn.constrain(model, geoopt.Sphere(), "1.weight")


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
    for out, inside in ((8, 2), (8, 1), (64, 2)):  # the last two have more filters than numbers in each
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
        rsam.RSAM(model.parameters(), lr=0.1)  # the optimizer holds the same parameters
        other = rsam.nn.constrain(convnet(), KernelSphere(), nn.Conv2d)
        other[0].weight.copy_(other[0].weight.roll(1, 0))
    buffer = io.BytesIO()
    torch.save(other.state_dict(), buffer)
    buffer.seek(0)
    model.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(model[0].weight, other[0].weight)  # bitwise, since it was on the manifold
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


def test_that_points_far_out_are_loaded_bitwise() -> None:
    """geoopt's check of the hyperboloid subtracts squares; at a distance of 1000 no point passes it in float32."""
    torch.manual_seed(0)
    linear = nn.Linear(4, 3)
    with torch.no_grad():
        linear.weight.mul_(1000)
    rsam.nn.constrain(linear, geoopt.Lorentz())
    state = {n: p.clone() for n, p in linear.state_dict().items()}
    assert not linear.weight.manifold.check_point_on_manifold(linear.weight.detach())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        linear.load_state_dict(state)
    assert torch.equal(linear.weight, state["weight"])
    with pytest.warns(UserWarning, match="projected"):
        linear.load_state_dict({**state, "weight": 1.1 * state["weight"] + 1})


def test_that_a_model_in_another_precision_than_its_manifold_is_loaded() -> None:
    """``.double()`` converts points but not manifolds, and geoopt's check needs points of the manifold's precision."""
    linear = rsam.nn.constrain(nn.Linear(4, 3), geoopt.Lorentz(k=2.0)).double()
    state = {n: p.clone() for n, p in linear.state_dict().items()}
    linear.load_state_dict(state)
    assert torch.equal(linear.weight, state["weight"])


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


def test_that_the_parameter_stays_the_same_object() -> None:
    """Ties, flat weights and optimizers that hold it keep working; copies of old values are not written to."""
    linear = nn.Linear(3, 3)
    weight, values = linear.weight, linear.state_dict()["weight"]
    before = values.clone()
    linear(torch.ones(3)).sum().backward()
    rsam.nn.constrain(linear, geoopt.Sphere())
    assert linear.weight is weight and isinstance(weight, geoopt.ManifoldParameter)
    assert torch.equal(values, before)
    assert weight.grad is None  # the gradient belonged to the old values


@pytest.mark.parametrize("manifold", [KernelSphere(), KernelStiefel()])
def test_that_kernels_keep_their_memory_format(manifold) -> None:
    conv = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    strides = conv.weight.stride()
    rsam.nn.constrain(conv, manifold)
    assert conv.weight.stride() == strides
    assert_on_manifold(conv.weight)


def test_that_a_shared_weight_is_plain_everywhere_after_one_of_its_modules_is_unconstrained() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(7, 4), "head": nn.Linear(4, 7, bias=False)})
    model["head"].weight = model["embedding"].weight
    rsam.nn.constrain(model, geoopt.Sphere(), "embedding.weight")
    rsam.nn.unconstrain(model["head"])
    state = {name: 3 * value for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    assert type(model["embedding"].weight) is nn.Parameter
    assert model["embedding"].weight is model["head"].weight
    assert torch.equal(model["embedding"].weight, state["embedding.weight"])
    rsam.RSAM(model.parameters(), torch.optim.SGD, lr=0.1)  # which takes it for a plain weight, too


def test_that_an_optimizer_from_before_names_the_undoing() -> None:
    linear = rsam.nn.constrain(nn.Linear(3, 3), geoopt.Sphere())
    optimizer = rsam.RSAM(linear.parameters(), lr=0.1)
    linear(torch.ones(3)).sum().backward()
    optimizer.first_step()
    optimizer.restore()
    rsam.nn.unconstrain(linear)
    with pytest.raises(ValueError, match=r"rsam\.nn\.unconstrain make it; .* make the optimizer anew"):
        optimizer.first_step()


def test_that_constraints_are_undone() -> None:
    model = rsam.nn.constrain(convnet(), KernelSphere(), nn.Conv2d)
    model.own = geoopt.ManifoldParameter(torch.tensor([1.0, 0.0]), manifold=geoopt.Sphere())
    twin = copy.deepcopy(model)
    values = {n: p.detach().clone() for n, p in model.named_parameters()}
    assert rsam.nn.unconstrain(model) is model
    assert on_manifold(model).keys() == {"own"}
    assert all(torch.equal(p, values[n]) for n, p in model.named_parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.load_state_dict(convnet().state_dict(), strict=False)  # the weight stays as it is
    assert torch.equal(model[0].weight, convnet()[0].weight)
    assert on_manifold(twin).keys() == {"0.weight", "3.weight", "own"}
    rsam.nn.constrain(model, KernelStiefel(), nn.Conv2d)


def _on_meta() -> nn.Sequential:
    with torch.device("meta"):
        return rsam.nn.constrain(nn.Sequential(nn.Linear(3, 4)), geoopt.Sphere(), "0.weight")


@pytest.mark.parametrize("assign", [False, True])
def test_that_weights_on_meta_are_projected_when_they_get_values(assign) -> None:
    model, plain = _on_meta(), nn.Sequential(nn.Linear(3, 4))
    model = model if assign else model.to_empty(device="cpu")
    with pytest.warns(UserWarning, match="projected"):
        model.load_state_dict(plain.state_dict(), assign=assign)
    assert_on_manifold(model[0].weight)
    rows = plain[0].weight.detach()
    torch.testing.assert_close(model[0].weight.detach(), rows / rows.norm(dim=1, keepdim=True))
    model(torch.ones(3))


def test_that_a_constraint_lost_on_the_way_from_meta_is_noticed() -> None:
    model = _on_meta().to_empty(device="cpu")
    model[0].reset_parameters()
    with pytest.raises(RuntimeError, match=r"'0\.weight' lost .*Sphere.* call rsam\.nn\.constrain again"):
        model(torch.ones(3))
    rsam.nn.constrain(model, geoopt.Sphere(), "0.weight")
    model(torch.ones(3))
    rsam.nn.unconstrain(_on_meta().to_empty(device="cpu"))(torch.ones(3))


@pytest.mark.parametrize(
    "change",
    [
        nn.utils.parametrizations.spectral_norm,
        nn.utils.spectral_norm,
        lambda layer: prune.random_unstructured(layer, "weight", 0.5),
        lambda layer: parametrize.register_parametrization(layer, "weight", nn.Identity()),
    ],
)
def test_that_a_weight_that_is_parametrized_afterwards_is_named_on_loading(change) -> None:
    model = rsam.nn.constrain(nn.Sequential(nn.Linear(3, 3)), geoopt.Sphere(), "0.weight")
    change(model[0])
    with pytest.raises(RuntimeError, match=r"'0\.weight' was put on .* no parameter any more"):
        model.load_state_dict(model.state_dict())
    rsam.nn.unconstrain(model).load_state_dict(model.state_dict())
    assert not on_manifold(model)


def _swapped(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(layer.weight.detach().clone())


LOSSES = pytest.mark.parametrize(
    ("lose", "message"),
    [
        (_swapped, "'weight' lost Sphere.*rsam.nn.constrain again"),
        (lambda layer: nn.utils.parametrizations.spectral_norm(layer), "parametrized, normalised or pruned since"),
        (lambda layer: nn.utils.prune.l1_unstructured(layer, "weight", 1), "parametrized, normalised or pruned since"),
    ],
    ids=["swapped", "normalised", "pruned"],
)


@LOSSES
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_that_optimizers_refuse_a_weight_that_lost_its_manifold_in_a_copy(copied, lose, message) -> None:
    model = rsam.nn.constrain(nn.Sequential(nn.Linear(4, 3)), geoopt.Sphere(), "0.weight")
    twin = copied(model)
    lose(twin[0])
    with pytest.raises(ValueError, match=message.replace("'weight'", "'0.weight'")):
        rsam.RSAM(twin.parameters(), lr=0.1)
    rsam.RSAM(model.parameters(), lr=0.1)
    rsam.RSAM(copied(model).parameters(), lr=0.1)


def test_that_a_copy_that_could_not_be_made_is_no_matter() -> None:
    model = rsam.nn.constrain(nn.Sequential(nn.Linear(4, 3)), geoopt.Sphere(), "0.weight")
    model[0].bad = (lambda: (yield))()  # what a notebook keeps in the traceback, half made
    with pytest.raises(TypeError) as error:
        copy.deepcopy(model)
    rsam.RSAM(model.parameters(), lr=0.1)
    assert error.traceback


@LOSSES
@pytest.mark.parametrize("optimizer", [rsam.RSAM, rsam.optim.RiemannianSGD, rsam.optim.RiemannianAdam])
def test_that_optimizers_refuse_a_weight_that_lost_its_manifold(optimizer, lose, message) -> None:
    layer = rsam.nn.constrain(nn.Linear(4, 3), geoopt.Sphere())
    lose(layer)
    with pytest.raises(ValueError, match=message):
        optimizer(layer.parameters(), lr=0.1)
    other = rsam.nn.constrain(nn.Linear(4, 3), geoopt.Sphere())
    optimizer(other.parameters(), lr=0.1)  # parameters of another module
    optimizer(rsam.nn.unconstrain(other).parameters(), lr=0.1)
