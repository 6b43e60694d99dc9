"""That timm makes RSAM by name, with the options that it gives to its own optimizers."""

from __future__ import annotations

from functools import partial

import geoopt
import pytest
import torch
from torch.nn.functional import cross_entropy

import rsam
from tests.integrations.problems import LR, RHO, batches, difference, expected, model

timm = pytest.importorskip("timm", reason="timm is not installed")
rsam.integrations.timm  # noqa: B018 -- adds the names


def small(**options) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3}
    return timm.create_model("vit_tiny_patch16_224", **sizes, **options)


def test_that_the_optimizer_by_name_takes_the_steps_of_rsam() -> None:
    ours = model()
    opt = timm.optim.create_optimizer_v2(list(ours.parameters()), "rsam", lr=LR, momentum=0.9, rho=RHO)
    for x, y in batches():

        def closure(x=x, y=y):
            opt.zero_grad()
            loss = cross_entropy(ours(x), y)
            loss.backward()
            return loss

        opt.step(closure)
    assert difference(ours, expected()) == 0


@pytest.mark.parametrize(
    "name, options, base",
    [
        ("rsam", {}, rsam.optim.RiemannianSGD),
        ("rsam", {"eps": 1e-6, "betas": (0.9, 0.99)}, rsam.optim.RiemannianSGD),  # dropped, as for timm's sgd
        ("rsam", {"base_optimizer": geoopt.optim.RiemannianSGD}, geoopt.optim.RiemannianSGD),
        ("rsamadam", {"eps": 1e-6, "betas": (0.9, 0.99)}, rsam.optim.RiemannianAdam),
        ("rsamadam", {"base_optimizer": torch.optim.AdamW}, torch.optim.AdamW),
    ],
)
def test_that_the_base_optimizer_is_chosen_by_name_or_option(name, options, base) -> None:
    opt = timm.optim.create_optimizer_v2(torch.nn.Linear(2, 2), name, lr=LR, weight_decay=0.1, rho=RHO, **options)
    assert type(opt.base_optimizer) is base
    group = opt.param_groups[1]
    assert (group["lr"], group["rho"], group["weight_decay"]) == (LR, RHO, 0.1)
    assert opt.param_groups[0]["weight_decay"] == 0  # the bias has no decay
    if name == "rsam":
        assert group["momentum"] == 0.9  # timm's default
    elif options.get("betas"):
        assert (group["eps"], group["betas"]) == (1e-6, (0.9, 0.99))


def test_that_layers_may_have_rates_of_their_own() -> None:
    opt = timm.optim.create_optimizer_v2(small(), "rsamadam", lr=LR, layer_decay=0.5, rho=RHO)
    assert len({group["lr_scale"] for group in opt.param_groups}) > 1
    assert {group["rho"] for group in opt.param_groups} == {RHO}


def test_that_weights_on_manifolds_do_not_decay() -> None:
    network = rsam.nn.constrain(small(), rsam.geometry.KernelSphere(), "blocks.*.fc1.weight")
    groups = partial(rsam.nn.parameter_groups, weight_decay=0.1)
    opt = timm.optim.create_optimizer_v2(network, "rsam", lr=LR, param_group_fn=groups)
    decay = {id(p): group["weight_decay"] for group in opt.param_groups for p in group["params"]}
    assert len(decay) == len(list(network.parameters()))
    assert decay[id(network.blocks[0].mlp.fc1.weight)] == 0
    assert decay[id(network.blocks[0].mlp.fc2.weight)] == 0.1


def test_that_lookahead_steps_plain_weights_and_is_refused_with_weights_on_manifolds() -> None:
    def step(network) -> None:
        opt = timm.optim.create_optimizer_v2(network, "lookahead_rsam", lr=LR, rho=RHO)

        def closure():
            opt.zero_grad()
            loss = cross_entropy(network(x), y)
            loss.backward()
            return loss

        x, y = batches()[0]
        opt.step(closure)

    plain = rsam.nn.unconstrain(model())
    step(plain)
    assert difference(plain, model()) > 0
    ours = model()
    with pytest.raises(ValueError, match=r"timm's Lookahead averages .* off its manifold; leave lookahead_ out"):
        step(ours)
    assert difference(ours, model()) == 0


def test_that_a_head_of_zeros_is_refused_by_name_and_may_be_left_out() -> None:
    network = small(weight_init="jax")
    assert not network.head.weight.any()
    with pytest.raises(ValueError, match=r"^head\.weight .* no nearest point there \(a zero or non-finite row\?\)"):
        rsam.nn.constrain(network, rsam.geometry.KernelSphere(), torch.nn.Linear)
    assert not any(isinstance(p, geoopt.ManifoldParameter) for p in network.parameters())
    rsam.nn.constrain(network, rsam.geometry.KernelSphere(), "blocks.*.fc1.weight")
    assert isinstance(network.blocks[0].mlp.fc1.weight, geoopt.ManifoldParameter)
