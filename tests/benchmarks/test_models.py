"""That networks have the described structure, fit their data, and can be trained."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.workloads.networks import MODELS
from benchmarks.workloads.networks.resnets import CifarResNet, _Block
from benchmarks.workloads.networks.small_networks import strided_cnn

FASHION, DIGITS, CIFAR, FOLDER, SIGNALS = (1, 28, 28), (1, 8, 8), (3, 32, 32), (3, 64, 64), (1, 40)
#: Shape of an example and number of classes for each network.
MEANT_FOR = {
    "small_cnn": [(FASHION, 10), (DIGITS, 10), (SIGNALS, 10)],
    "small_plain_cnn": [(FASHION, 10), (DIGITS, 10)],
    "pooled_cnn": [(FASHION, 10), ((3, 30, 45), 7)],
    "small_gelu_cnn": [(FASHION, 10)],
    "tiny_cnn": [(FASHION, 10), (DIGITS, 10)],
    "tiny_gelu_cnn": [(FASHION, 10)],
    "wide_cnn": [(FASHION, 10), ((3, 9, 17), 4)],
    "wide_plain_cnn": [(FASHION, 10)],
    "cnn_1d": [(SIGNALS, 10), ((2, 41), 3)],
    "plain_cnn_1d": [(SIGNALS, 10)],
    "resnet8": [(FASHION, 10), (CIFAR, 100), (FOLDER, 5)],
    "plain_resnet8": [(CIFAR, 10)],
    "resnet20": [(CIFAR, 10), (FASHION, 10)],
    "plain_resnet20": [(CIFAR, 10)],
    "resnet18": [(CIFAR, 100), (FOLDER, 5), (FASHION, 10), ((1, 64, 80), 3)],
}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_that_every_network_is_tried() -> None:
    assert MEANT_FOR.keys() == MODELS.keys()


@pytest.mark.parametrize(("name", "shape", "classes"), [(n, s, c) for n, cases in MEANT_FOR.items() for s, c in cases])
def test_that_networks_give_logits_and_train(name, shape, classes) -> None:
    torch.manual_seed(0)
    model = MODELS[name](shape, classes)
    examples, labels = torch.randn(4, *shape), torch.arange(4) % classes
    logits = model(examples)
    assert logits.shape == (4, classes)
    F.cross_entropy(logits, labels).backward()
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        assert p.grad is not None and p.grad.isfinite().all()
    # if all layers are connected, all of them get gradients
    assert all(bool(p.grad.any()) for p in model.parameters())
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert not any(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert model(examples).isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_that_only_networks_without_plain_in_their_names_have_batch_norm(name) -> None:
    shape, classes = MEANT_FOR[name][0]
    modules = list(MODELS[name](shape, classes).modules())
    norms = [m for m in modules if isinstance(m, NORMS)]
    convolutions = [m for m in modules if isinstance(m, nn.Conv1d | nn.Conv2d)]
    if "plain" in name:
        assert not norms
        assert all(m.bias is not None for m in convolutions)
    else:
        assert len(norms) == len(convolutions)
        assert all(m.bias is None for m in convolutions)  # batch norm would subtract it


# The sizes that comments beside the networks claim, on images of 28 by 28 in ten classes.
@pytest.mark.parametrize(
    ("name", "thousands"), [("small_cnn", 19), ("tiny_cnn", 2), ("wide_cnn", 90), ("pooled_cnn", 83)]
)
def test_that_small_networks_are_as_small_as_they_say(name, thousands) -> None:
    assert round(parameters(MODELS[name](FASHION, 10)) / 1000) == thousands


@pytest.mark.parametrize("name", ["small_gelu_cnn", "tiny_gelu_cnn"])
def test_that_gelu_networks_have_no_kinks(name) -> None:
    smooth = list(MODELS[name](FASHION, 10).modules())
    kinked = list(MODELS[name.replace("_gelu", "")](FASHION, 10).modules())
    assert not any(isinstance(m, nn.ReLU) for m in smooth)
    assert sum(isinstance(m, nn.GELU) for m in smooth) == sum(isinstance(m, nn.ReLU) for m in kinked) == 3


@pytest.mark.parametrize(("shape", "convolve"), [((2, 9, 12), F.conv2d), ((2, 13), F.conv1d)])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_that_a_strided_network_computes_what_it_says(shape, convolve, batch_norm) -> None:
    torch.manual_seed(1)
    model = strided_cnn(shape, 3, widths=(4, 5), batch_norm=batch_norm).double()
    examples = torch.randn(6, *shape, dtype=torch.float64)
    x = examples
    for m in [m for m in model if isinstance(m, nn.Conv1d | nn.Conv2d)]:
        x = convolve(x, m.weight, m.bias, stride=2, padding=1)
        # a new layer has scale 1 and shift 0
        x = torch.relu(F.batch_norm(x, None, None, training=True) if batch_norm else x)
    torch.testing.assert_close(model(examples), F.linear(x.flatten(1), model[-1].weight, model[-1].bias))


def test_that_the_signal_network_is_that_of_mnist_1d_in_widths() -> None:
    # Greydanus and Kobak 2024: three convolutions of 25 filters, and a linear layer on 125 features
    model = MODELS["plain_cnn_1d"](SIGNALS, 10)
    assert [m.out_channels for m in model if isinstance(m, nn.Conv1d)] == [25, 25, 25]
    assert model[-1].in_features == 125


# -- residual networks -----------------------------------------------------------------------------------------------


def convolved(x: Tensor, m: nn.Conv2d, stride: int) -> Tensor:
    return F.conv2d(x, m.weight, m.bias, stride=stride, padding=1)


def normed(x: Tensor, m: nn.Module) -> Tensor:
    if isinstance(m, nn.Identity):
        return x
    return F.batch_norm(x, None, None, m.weight, m.bias, training=True)


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize(("inside", "out", "stride", "side"), [(3, 5, 2, 8), (3, 5, 2, 7), (4, 4, 1, 6)])
def test_that_a_block_has_a_shortcut_without_parameters(inside, out, stride, side, batch_norm) -> None:
    torch.manual_seed(2)
    block = _Block(inside, out, stride, batch_norm, skip=True).double()
    for p in block.parameters():
        nn.init.normal_(p)
    x = torch.randn(4, inside, side, side, dtype=torch.float64)
    inner = torch.relu(normed(convolved(x, block.first, stride), block.first_norm))
    inner = normed(convolved(inner, block.second, 1), block.second_norm)
    # every second pixel of each row and column, and zeros for the additional channels
    short = F.avg_pool2d(x, kernel_size=1, stride=stride)
    short = torch.cat([short, torch.zeros(4, out - inside, *short.shape[2:], dtype=torch.float64)], 1)
    torch.testing.assert_close(block(x), torch.relu(inner + short))


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_that_residual_networks_have_the_sizes_of_their_paper(depth, millions) -> None:
    # He et al. 2016, Table 6
    model = CifarResNet(CIFAR, 10, depth=depth)
    assert round(parameters(model) / 1e6, 2) == millions
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == depth


def test_that_names_tell_the_depth() -> None:
    for name, depth in (("resnet8", 8), ("plain_resnet8", 8), ("resnet20", 20), ("plain_resnet20", 20)):
        model = MODELS[name](CIFAR, 10)
        assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules()) == depth
    assert parameters(MODELS["resnet8"](CIFAR, 10)) < parameters(MODELS["resnet20"](CIFAR, 10))


@pytest.mark.parametrize("depth", [0, 7, 18])
def test_that_other_depths_are_refused(depth) -> None:
    with pytest.raises(ValueError, match=rf"depth must be 6 n \+ 2, got {depth}"):
        CifarResNet(CIFAR, 10, depth=depth)


@pytest.mark.parametrize("name", ["resnet20", "plain_resnet20"])
def test_that_features_shrink_as_in_the_paper_and_are_averaged(name) -> None:
    torch.manual_seed(3)
    model = MODELS[name](CIFAR, 10)
    shapes, heard = [], []
    for block in model.blocks:
        block.register_forward_hook(lambda _, inputs, output: shapes.append(tuple(output.shape[1:])))
    model.blocks.register_forward_hook(lambda _, inputs, output: heard.extend([inputs[0], output]))
    model.head.register_forward_hook(lambda _, inputs, output: heard.append(inputs[0]))
    images = torch.randn(2, *CIFAR)
    logits = model(images)
    assert shapes == [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3
    first, last, features = heard
    torch.testing.assert_close(first, torch.relu(normed(convolved(images, model.stem, 1), model.norm)))
    torch.testing.assert_close(features, last.mean((2, 3)))
    torch.testing.assert_close(logits, features @ model.head.weight.T + model.head.bias)


@pytest.mark.parametrize("name", ["resnet20", "plain_resnet20"])
def test_that_branches_start_small_where_no_batch_norm_keeps_them_so(name) -> None:
    model = MODELS[name](CIFAR, 10)
    factor = 0.1 if name == "plain_resnet20" else 1.0
    for block in model.blocks:
        for convolution, size in ((block.first, 1.0), (block.second, factor)):
            # torch draws uniformly below 1 / sqrt(numbers in a filter); the largest of thousands is close to that
            greatest = float(convolution.weight.detach().abs().max()) * math.sqrt(convolution.weight[0].numel())
            assert 0.95 * size < greatest <= size * (1 + 1e-6)


def test_that_resnet_18_on_small_images_keeps_their_pixels() -> None:
    model = MODELS["resnet18"](CIFAR, 10)
    assert round(parameters(model) / 1e6, 1) == 11.2
    seen: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_children():
        module.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: tuple(output.shape[1:])}))
    model.eval()(torch.randn(1, *CIFAR))
    assert model.conv1.kernel_size == (3, 3)
    assert seen["conv1"] == seen["layer1"] == (64, 32, 32)
    assert seen["layer4"] == (512, 4, 4)


@pytest.mark.parametrize("shape", [FOLDER, (3, 70, 64), (1, 64, 64)])
def test_that_resnet_18_on_large_images_is_torchvision_s(shape) -> None:
    model = MODELS["resnet18"](shape, 7).eval()
    reference = torchvision.models.resnet18(num_classes=7).eval()
    state = model.state_dict()
    images = torch.randn(2, *shape)
    if shape[0] == 1:
        # grey images in three equal channels are equivalent to a third of each filter in each channel
        state["conv1.weight"] = state["conv1.weight"].expand(-1, 3, -1, -1) / 3
    reference.load_state_dict(state)
    # the same arithmetic up to the order of sums over channels
    torch.testing.assert_close(model(images), reference(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_that_an_image_is_small_if_one_side_is() -> None:
    assert MODELS["resnet18"]((3, 63, 200), 7).conv1.stride == (1, 1)
    assert MODELS["resnet18"]((3, 64, 64), 7).conv1.stride == (2, 2)
