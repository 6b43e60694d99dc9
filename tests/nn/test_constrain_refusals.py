"""That constrain refuses what cannot be, with the reason, and changes nothing then."""

from __future__ import annotations

import warnings

import geoopt
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import rsam
from rsam.geometry import KernelSphere
from tests.nn.test_constrain import convnet, on_manifold


def _spectral() -> nn.Module:
    return nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))


def _weight_norm() -> nn.Module:
    with warnings.catch_warnings():  # torch prefers the parametrization above and warns
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(nn.Linear(3, 3))


def _pruned() -> nn.Module:
    return prune.random_unstructured(nn.Linear(3, 3), "weight", 0.5)


def _scripted() -> nn.Module:
    with warnings.catch_warnings():  # torch prefers torch.export and warns
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Linear(3, 3))


def _zero_row() -> nn.Module:
    linear = nn.Linear(3, 3)
    nn.init.zeros_(linear.weight[1])
    return linear


class Quantised(nn.Parameter):
    """Parameter of a library that gives it methods of its own."""


def _holding(weight: nn.Parameter) -> nn.Module:
    module = nn.Module()
    module.weight = weight
    return module


@pytest.mark.parametrize(
    ("module", "manifold", "where", "reason"),
    [
        (nn.Linear(3, 3), geoopt.Sphere(), nn.Conv2d, "matches no parameter of Linear"),
        (nn.Linear(3, 3), geoopt.Sphere(), nn.Conv2d, "its layers with weights are Linear"),
        (nn.Linear(3, 3), geoopt.Sphere(), "weights", r"'weights' matches no parameter.* its 2 names are 'weight'"),
        (nn.Linear(3, 3), geoopt.Sphere(), ["weight", "wieght"], "'wieght' matches no parameter"),
        (nn.Sequential(nn.LayerNorm(3)), geoopt.Sphere(), "*.weight", "name these exactly"),
        (
            nn.Sequential(nn.Linear(3, 3)),
            geoopt.Sphere(),
            nn.Module,
            "the module .Sequential. has no parameter 'weight'",
        ),
        (nn.Linear(3, 2), geoopt.EuclideanStiefel(), "weight", r"shape\[-1\] <= shape\[-2\]"),
        (nn.Linear(1, 3), geoopt.Sphere(), "weight", "isolated points"),
        (nn.Linear(3, 3), KernelSphere(), "bias", "requires more than"),
        (_zero_row(), geoopt.Sphere(), "weight", "no nearest point"),
        (_spectral(), geoopt.Sphere(), nn.Linear, "parametrized already"),
        (nn.Sequential(_spectral()), geoopt.Sphere(), "*.weight", r"0\.weight cannot .* parametrized already"),
        (_spectral(), geoopt.Sphere(), "parametrizations.weight.original", "computes its weight"),
        (_weight_norm(), geoopt.Sphere(), "weight_v", "computes its weight"),
        (_weight_norm(), geoopt.Sphere(), nn.Linear, "normalised"),
        (_pruned(), geoopt.Sphere(), "weight", "pruned"),
        (_scripted(), geoopt.Sphere(), "weight", "torch.jit, which takes no hooks; constrain the module before"),
        (nn.LazyLinear(3), geoopt.Sphere(), "weight", "no shape yet"),
        (_holding(nn.Parameter(torch.ones(3, 3, dtype=torch.int64), False)), geoopt.Sphere(), "weight", "its dtype is"),
        (
            _holding(Quantised(torch.ones(3, 3))),
            geoopt.Sphere(),
            "weight",
            "is a Quantised, which has a meaning of its",
        ),
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


def test_that_an_exclusion_that_excludes_nothing_or_all_is_refused() -> None:
    with pytest.raises(ValueError, match=r"exclude='head\.\*' matches no parameter of Sequential"):
        rsam.nn.constrain(convnet(), KernelSphere(), nn.Conv2d, exclude="head.*")
    with pytest.raises(ValueError, match=r"leaves none of the 2 parameters"):
        rsam.nn.constrain(convnet(), KernelSphere(), nn.Conv2d, exclude=nn.Conv2d)


@pytest.mark.parametrize(
    "where", [nn.Linear(3, 3), None, (name for name in ("weight",))], ids=["module", "none", "iterator"]
)
def test_that_what_chooses_no_weights_is_refused_by_its_type(where) -> None:
    with pytest.raises(TypeError, match=rf"got {type(where).__name__}; for a single module constrain\(model\.layer"):
        rsam.nn.constrain(nn.Linear(3, 3), geoopt.Sphere(), where)
    with pytest.raises(TypeError, match="where and exclude take names"):
        rsam.nn.constrain(nn.Linear(3, 3), geoopt.Sphere(), exclude=where)


@pytest.mark.parametrize(
    "model", [[nn.Linear(3, 3)], nn.Linear(3, 3).parameters(), None], ids=["list", "weights", "none"]
)
def test_that_what_is_no_module_is_refused(model) -> None:
    optimizer = rsam.RSAM(nn.Linear(3, 3).parameters(), lr=0.1)
    for function in (
        lambda: rsam.nn.constrain(model, geoopt.Sphere()),
        lambda: rsam.nn.unconstrain(model),
        lambda: rsam.nn.parameter_groups(model, 0.1),
        lambda: rsam.nn.update_statistics_once(optimizer, model),
    ):
        with pytest.raises(TypeError, match=rf"takes a torch\.nn\.Module, got {type(model).__name__}"):
            function()


def test_that_an_error_shows_a_few_names_of_many() -> None:
    model = nn.ModuleDict({f"block{i}": nn.Linear(3, 3) for i in range(50)})
    with pytest.raises(ValueError, match=r"'block7\.weight'") as caught:
        rsam.nn.constrain(model, geoopt.Sphere(), "block7.weigth")
    assert str(caught.value).count("block") <= 4


def test_that_patterns_pass_over_what_weights_are_computed_from() -> None:
    model = nn.Sequential(_spectral(), nn.Linear(3, 3))
    rsam.nn.constrain(model, geoopt.Sphere(), "*.weight*", exclude="0.weight")
    assert on_manifold(model).keys() == {"1.weight"}
