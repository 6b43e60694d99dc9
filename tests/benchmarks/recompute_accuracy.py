"""Compute test accuracy from saved weights by torch and numpy alone: ``recompute_accuracy.py IMAGES WEIGHTS...``.

It shares no code with the benchmarks: the network is written out, and the images are read and normalised here.
"""

import sys

import numpy as np
import torch
from torch.nn.functional import batch_norm, conv2d, linear, relu


def accuracy(images: str, weights: str) -> float:
    with np.load(images) as arrays:
        train = arrays["train_images"].astype(np.float64)
        pixels = (arrays["test_images"].astype(np.float64) - train.mean()) / train.std()
        labels = torch.from_numpy(arrays["test_labels"].astype(np.int64))
    state = {name: tensor.double() for name, tensor in torch.load(weights, weights_only=True).items() if tensor.ndim}
    x = torch.from_numpy(pixels)[:, None]
    for convolution, norm in (("0", "1"), ("3", "4"), ("6", "7")):
        x = conv2d(x, state[f"{convolution}.weight"], stride=2, padding=1)
        mean, variance = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        x = relu(batch_norm(x, mean, variance, state[f"{norm}.weight"], state[f"{norm}.bias"]))
    logits = linear(x.flatten(1), state["10.weight"], state["10.bias"])
    return int((logits.argmax(1) == labels).sum()) / len(labels)


if __name__ == "__main__":
    for weights in sys.argv[2:]:
        print(accuracy(sys.argv[1], weights))
