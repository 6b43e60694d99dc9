"""Networks by name."""

from collections.abc import Callable

from torch import nn

from benchmarks.models.small_networks import pooled_cnn, small_cnn, small_gelu_cnn, wide_cnn, wide_plain_cnn

__all__ = ["MODELS"]

# name -> network for images of so many channels and so many classes
MODELS: dict[str, Callable[[int, int], nn.Module]] = {
    "small_cnn": small_cnn,
    "pooled_cnn": pooled_cnn,
    "small_gelu_cnn": small_gelu_cnn,
    "wide_cnn": wide_cnn,
    "wide_plain_cnn": wide_plain_cnn,
}
