"""
Kernels on spheres against plain
================================

Behind batch norm the length of a kernel does not change what the network computes, yet it decides how far a step turns
the kernel. On unit spheres the length is fixed, so that the learning rate keeps its meaning throughout training.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import rsam

images, labels = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
images = images.float().reshape(-1, 1, 8, 8) / 16
train, test = (images[:500], labels[:500]), (images[1200:], labels[1200:])


# %%
# One line puts the kernels of both convolutions on spheres, and ``RSAM`` follows the spheres. On plain weights the same
# optimizer is SAM.
def fit(spheres: bool) -> tuple[list[float], list[float]]:
    """Return the test accuracy and the mean length of the kernels after each epoch."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 8, 3, bias=False), nn.Conv2d(8, 16, 3, bias=False)
    model = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), second, nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten())
    model.append(nn.Linear(256, 10))
    if spheres:
        rsam.nn.constrain(model, rsam.geometry.KernelSphere(), nn.Conv2d)
    optimizer = rsam.RSAM(model.parameters(), lr=0.1, momentum=0.9, rho=0.05)
    rsam.nn.update_statistics_once(optimizer, model)
    accuracies, lengths = [], []
    for _ in range(20):
        for batch in torch.randperm(500).split(50):

            def closure() -> torch.Tensor:
                optimizer.zero_grad()
                loss = cross_entropy(model(train[0][batch]), train[1][batch])
                loss.backward()
                return loss

            optimizer.step(closure)
        with torch.no_grad():
            accuracies.append(100 * (model.eval()(test[0]).argmax(1) == test[1]).double().mean().item())
            lengths.append(second.weight.flatten(1).norm(dim=1).mean().item())
        model.train()
    return accuracies, lengths


# %%
# The gradient through batch norm is orthogonal to the kernel. So steps make plain kernels longer, and the same learning
# rate turns them less and less. One seed does not tell which of the two generalises better;
# :doc:`a study </results/optimizers>` asks that.
ticks = range(0, 21, 5)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for name, spheres in (("plain (SAM)", False), ("on spheres (RSAM)", True)):
    accuracies, lengths = fit(spheres)
    left.plot(range(1, 21), lengths, label=name)
    right.plot(range(1, 21), accuracies)
left.set(title="Length of the kernels", xlabel="epoch", ylabel="mean norm, second layer", xticks=ticks)
right.set(title="Accuracy", xlabel="epoch", ylabel="test accuracy, %", xticks=ticks)
figure.legend(loc="outside lower center", ncols=2)
plt.show()
