"""
RSAM at 1.1 gradients per step
==============================

SAM takes two gradients per step. The ascent needs only a rough direction: a quarter of the batch gives one, and every
second step does without. That is 1.125 gradients per step.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import rsam

images, labels = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
images = images.float().reshape(-1, 1, 8, 8) / 16
torch.manual_seed(0)
wrong = torch.rand(600) < 0.3  # these labels are drawn anew
train = images[:600], torch.where(wrong, torch.randint(10, (600,)), labels[:600])
test = images[1200:], labels[1200:]


def fit(rho: float, every: int, fraction: float) -> tuple[list[float], list[float]]:
    """Return how many gradients of a batch were taken after each epoch, and the test accuracy then."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))
    model = rsam.nn.constrain(model, rsam.geometry.KernelSphere(), nn.Conv2d)
    optimizer = rsam.RSAM(model.parameters(), lr=0.05, momentum=0.9, rho=rho, every=every)
    rsam.nn.update_statistics_once(optimizer, model)
    examples, gradients, accuracies = 0, [], []

    def loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        nonlocal examples
        examples += len(x)
        return cross_entropy(model(x), y)

    for _ in range(25):
        for batch in torch.randperm(600).split(60):
            optimizer.step(*rsam.optim.partial_closures(optimizer, loss, (train[0][batch], train[1][batch]), fraction))
        with torch.no_grad():
            accuracies.append(100 * (model.eval()(test[0]).argmax(1) == test[1]).double().mean().item())
        gradients.append(examples / 60)
        model.train()
    return gradients, accuracies


# %%
# The radius has to grow as the ascent gets rarer and rougher. Without an ascent the network learns the wrong labels in
# the end, and its accuracy falls. Both ascents hold back part of that here, in one run of each.
settings = {"no ascent": (0.0, 1, 1.0), "every step": (0.2, 1, 1.0), "a quarter, every second step": (0.5, 2, 0.25)}
figure, panel = plt.subplots(figsize=(8, 4.8), layout="constrained")
for name, (rho, every, fraction) in settings.items():
    gradients, accuracies = fit(rho, every, fraction)
    panel.plot(gradients, accuracies, label=f"{name}: {gradients[-1] / 250:.4g} gradients per step")
panel.set(title="30 % of the training labels drawn anew", xlabel="gradients of a batch", ylabel="test accuracy, %")
figure.legend(loc="outside lower center")
plt.show()
