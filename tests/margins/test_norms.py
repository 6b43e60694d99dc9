"""That spectral norms and the path norm are those of the layers as linear maps."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from rsam import NotFinite
from rsam.margins import path_norm, spectral_norms
from tests.margins.problems import DOUBLE, normal


def matrix_of(layer: nn.Module, *shape: int) -> Tensor:
    """Return the matrix of a layer, its Jacobian."""
    jacobian = torch.autograd.functional.jacobian(layer, torch.zeros(1, *shape, dtype=DOUBLE))
    return jacobian.reshape(-1, torch.Size(shape).numel())


CONVOLUTIONS = {
    "padded": lambda: nn.Conv2d(2, 3, 3, padding=1),
    "strided, in groups": lambda: nn.Conv2d(2, 4, 3, stride=2, groups=2, dilation=2, padding=2),
    "circular": lambda: nn.Conv2d(2, 3, 3, padding="same", padding_mode="circular"),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("size", [6, 12])  # below and above the size that is written out as a matrix
def test_that_the_norm_of_a_convolution_is_that_of_its_matrix(kind: str, size: int) -> None:
    model = nn.Sequential(CONVOLUTIONS[kind](), nn.ReLU(), nn.Flatten()).double()
    actual = spectral_norms(model, normal(3, 2, size, size))["0"]
    expected = torch.linalg.matrix_norm(matrix_of(model[0], 2, size, size), 2)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("size", [6, 12])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])  # whose squares leave the range of single precision
def test_that_the_norm_of_a_convolution_is_as_large_as_its_weight(size: int, scale: float) -> None:
    layer, inputs = nn.Conv2d(2, 3, 3, padding=1), torch.zeros(1, 2, size, size)
    expected = scale * float(spectral_norms(layer, inputs)[""])
    layer.weight.data *= scale
    assert float(spectral_norms(layer, inputs)[""]) == pytest.approx(expected, rel=1e-5, abs=0)


def test_that_a_convolution_to_one_number_has_the_norm_of_its_weight() -> None:
    layer = nn.Conv2d(2, 1, 12).double()
    actual = spectral_norms(layer, torch.zeros(1, 2, 12, 12, dtype=DOUBLE))[""]
    torch.testing.assert_close(actual, layer.weight.detach().norm())


@pytest.mark.parametrize("size", [6, 12])
def test_that_norms_of_complex_weights_are_those_of_their_absolute_values(size: int) -> None:
    layer = nn.Conv2d(2, 3, 3, padding=1, dtype=torch.complex128)
    layer.weight.data = normal(3, 2, 3, 3, dtype=torch.complex128)
    units = torch.eye(2 * size * size, dtype=torch.complex128).reshape(-1, 2, size, size)
    matrix = nn.functional.conv2d(units, layer.weight.detach(), padding=1).flatten(1)
    actual = spectral_norms(layer, units)[""]
    torch.testing.assert_close(actual, torch.linalg.matrix_norm(matrix, 2), rtol=1e-9, atol=0)
    expected = (matrix.abs().square().sum() + size * size * layer.bias.abs().square().sum()).sqrt()
    torch.testing.assert_close(path_norm(layer, units), expected.detach())


def test_that_the_network_may_be_one_convolution_or_no_classifier() -> None:
    convolution, inputs = nn.Conv2d(1, 1, 3).double(), normal(2, 1, 4, 4)
    expected = torch.linalg.matrix_norm(matrix_of(convolution, 1, 4, 4), 2).detach()
    regression = nn.Sequential(convolution, nn.Flatten(), nn.Linear(4, 1).double())
    norms = [
        spectral_norms(convolution, inputs)[""],
        spectral_norms(regression, inputs)["0"],
        spectral_norms(torch.compile(regression), inputs)["0"],
    ]
    torch.testing.assert_close(torch.stack(norms), expected.expand(3), rtol=1e-9, atol=0)


def test_that_a_convolution_for_images_of_two_shapes_is_refused() -> None:
    convolution = nn.Conv2d(1, 1, 3)
    model = nn.Sequential(convolution, nn.ReLU(), convolution, nn.Flatten())
    with pytest.raises(ValueError, match="'0' is called 2 times"):
        spectral_norms(model, torch.zeros(1, 1, 8, 8))


def test_that_linear_layers_and_batch_norms_have_their_largest_singular_value() -> None:
    model = nn.Sequential(
        nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 3), nn.BatchNorm1d(3, affine=False)
    ).double()
    for norm in (model[1], model[4]):  # the latter has no parameters
        norm.running_var.uniform_(0.1, 2)
    nn.init.normal_(model[1].weight)
    actual = spectral_norms(model, normal(1, 4))
    assert list(actual) == ["0", "1", "3", "4"]
    for name, value in actual.items():
        layer = model[int(name)].eval()
        matrix = matrix_of(layer, layer.in_features if isinstance(layer, nn.Linear) else 3)
        torch.testing.assert_close(value, torch.linalg.matrix_norm(matrix, 2))


def test_that_the_path_norm_is_a_sum_over_paths() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 2), nn.ReLU()), nn.Linear(2, 2))
    model = model.double()
    a, b, c = (layer.weight for layer in (model[0], model[2][0], model[3]))
    p, q, r = (layer.bias for layer in (model[0], model[2][0], model[3]))
    total = sum(
        (a[j, i] * b[k, j] * c[o, k]) ** 2 for i, j, k, o in itertools.product(range(2), range(3), *[range(2)] * 2)
    )
    total += sum((p[j] * b[k, j] * c[o, k]) ** 2 for j, k, o in itertools.product(range(3), range(2), range(2)))
    total += sum((q[k] * c[o, k]) ** 2 for k, o in itertools.product(range(2), range(2))) + r.square().sum()
    for network in (model, torch.compile(model)):
        torch.testing.assert_close(path_norm(network, normal(5, 2)), total.sqrt().detach())


@pytest.mark.parametrize(
    ("pool", "size"), [(nn.AvgPool2d(2), 8), (nn.AvgPool2d((2, 1), padding=(1, 0)), 24), (nn.AdaptiveAvgPool2d(1), 2)]
)
def test_that_convolutions_batch_norms_and_pools_take_part_with_their_weights(pool: nn.Module, size: int) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), pool, nn.Flatten(), nn.Linear(size, 3)
    ).double()
    model[1].running_var.uniform_(0.5, 2)
    model[1].running_mean.normal_()
    model.eval()
    shapes, x = [], torch.zeros(1, 1, 6, 6, dtype=DOUBLE)
    squares = torch.ones(36, dtype=DOUBLE)  # sums over paths to each number, by the layers' matrices
    for layer in model:
        shapes.append(tuple(x.shape[1:]))
        if not isinstance(layer, nn.ReLU):
            squares = matrix_of(layer, *shapes[-1]).square() @ squares + layer(torch.zeros_like(x)).flatten().square()
        x = layer(x)
    torch.testing.assert_close(path_norm(model, torch.zeros(1, 1, 6, 6)), squares.sum().sqrt().detach())


def test_that_layers_without_a_known_norm_are_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    with pytest.raises(ValueError, match="'1' is a LayerNorm, whose spectral norm is not known"):
        spectral_norms(model, torch.zeros(1, 4))
    with pytest.raises(ValueError, match="'1' is a LayerNorm, whose paths are not known"):
        path_norm(model, torch.zeros(1, 4))
    for pool in (
        nn.MaxPool2d(2),
        nn.AvgPool2d(2, ceil_mode=True),  # of which some windows are divided by other numbers than their sizes
        nn.AvgPool2d(2, padding=1, count_include_pad=False),
        nn.AvgPool2d(2, divisor_override=3),
        nn.AdaptiveAvgPool2d(2),
    ):
        with pytest.raises(ValueError, match=f"'0' is a {type(pool).__name__}, whose paths are not known"):
            path_norm(nn.Sequential(pool), torch.zeros(1, 1, 4, 4))
    for norm in (nn.InstanceNorm2d(1), nn.GroupNorm(1, 1, affine=False), nn.LocalResponseNorm(2)):  # without parameters
        with pytest.raises(ValueError, match=f"'0' is a {type(norm).__name__}, whose spectral norm is not known"):
            spectral_norms(nn.Sequential(norm), torch.zeros(1, 1, 4, 4))
    with pytest.raises(ValueError, match="'0' keeps no running statistics"):
        spectral_norms(nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)), torch.zeros(2, 3))


def test_that_norms_of_numbers_that_are_not_finite_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
    model[1].weight.data[0] = torch.nan
    with pytest.raises(NotFinite, match="running variance of layer '1' are not finite"):
        spectral_norms(model, torch.zeros(1, 2))
    model[0].weight.data[0] = torch.inf
    with pytest.raises(NotFinite, match="weight of layer '0' is not finite"):
        spectral_norms(model, torch.zeros(1, 2))
    with pytest.raises(NotFinite, match="path norm is nan"):
        path_norm(model, torch.zeros(1, 2))


def test_that_a_layer_used_twice_is_twice_on_each_path() -> None:
    twice, last = nn.Linear(2, 2).double(), nn.Linear(2, 1).double()
    shared = nn.Sequential(twice, nn.ReLU(), twice, last)
    copies = nn.Sequential(twice, nn.ReLU(), copy.deepcopy(twice), last)
    torch.testing.assert_close(path_norm(shared, torch.zeros(1, 2)), path_norm(copies, torch.zeros(1, 2)))


def test_that_a_layer_may_be_called_by_keyword() -> None:
    class ByKeyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(input=x)

    model, x = ByKeyword(), torch.zeros(1, 1, 4, 4)
    assert spectral_norms(model, x)["layer"] == spectral_norms(model.layer, x)[""]


def test_that_a_layer_that_is_not_called_once_has_no_place_in_a_product_of_norms() -> None:
    twice, norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
    with pytest.raises(ValueError, match="layer '0' is called 2 times"):
        spectral_norms(nn.Sequential(twice, nn.ReLU(), twice), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="layer '1' is called 2 times"):
        spectral_norms(nn.Sequential(twice, norm, nn.ReLU(), norm), torch.zeros(1, 2))


@pytest.mark.parametrize("layer", [nn.Linear(3, 3, bias=False), nn.Conv2d(1, 2, 2, bias=False)], ids=repr)
def test_that_a_weight_that_a_hook_computes_is_that_of_the_present_parameters(layer: nn.Module) -> None:
    model = nn.Sequential(prune.l1_unstructured(copy.deepcopy(layer), "weight", 1))
    inputs = torch.zeros(1, 3) if isinstance(layer, nn.Linear) else torch.zeros(1, 1, 3, 3)
    before = path_norm(model, inputs), spectral_norms(model, inputs)["0"]
    model[0].weight_orig.data.mul_(2)  # as by a step of an optimizer; the layer computes its weight when it is called
    assert path_norm(model, inputs) == 2 * before[0]
    model[0].weight_orig.data.mul_(2)
    assert spectral_norms(model, inputs)["0"] == 4 * before[1]
