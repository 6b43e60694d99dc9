"""Collect networks by name."""

from collections.abc import Callable

from torch import nn

from benchmarks.workloads.networks import resnets, small_networks
from benchmarks.workloads.networks.small_networks import Shape

__all__ = ["MODELS", "Shape"]

# each takes the shape of an example, channels first, and the number of classes
MODELS: dict[str, Callable[[Shape, int], nn.Module]] = {
    "small_cnn": small_networks.small_cnn,
    "small_plain_cnn": small_networks.small_plain_cnn,
    "pooled_cnn": small_networks.pooled_cnn,
    "small_gelu_cnn": small_networks.small_gelu_cnn,
    "tiny_cnn": small_networks.tiny_cnn,
    "tiny_gelu_cnn": small_networks.tiny_gelu_cnn,
    "wide_cnn": small_networks.wide_cnn,
    "wide_plain_cnn": small_networks.wide_plain_cnn,
    "cnn_1d": small_networks.cnn_1d,
    "plain_cnn_1d": small_networks.plain_cnn_1d,
    "resnet8": resnets.resnet8,
    "plain_resnet8": resnets.plain_resnet8,
    "resnet20": resnets.resnet20,
    "plain_resnet20": resnets.plain_resnet20,
    "resnet18": resnets.resnet18,
}
