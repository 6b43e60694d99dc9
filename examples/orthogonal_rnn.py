"""
An orthogonal recurrent network
===============================

A recurrent matrix on the Stiefel manifold keeps lengths, so that the state neither shrinks nor blows up when it is
applied again and again. The task is to name the first input after forty blank ones.
"""

import geoopt
import matplotlib.pyplot as plt
import torch
from torch import nn

import rsam

STEPS, WIDTH = 40, 32
first = torch.arange(64) % 4
inputs = torch.cat([nn.functional.one_hot(first, 4)[:, None].float(), torch.zeros(64, STEPS, 4)], 1)


class Recurrent(nn.Module):
    def __init__(self, orthogonal: bool) -> None:
        super().__init__()
        matrix = torch.nn.init.orthogonal_(torch.empty(WIDTH, WIDTH))
        manifold = rsam.geometry.CanonicalStiefel() if orthogonal else geoopt.Euclidean()
        self.recurrent = geoopt.ManifoldParameter(matrix, manifold=manifold)
        self.input, self.output = nn.Linear(4, WIDTH), nn.Linear(WIDTH, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = x.new_zeros(len(x), WIDTH)
        for step in x.unbind(1):
            state = torch.tanh(state @ self.recurrent.mT + self.input(step))
        return self.output(state)


# %%
# Both start from the same orthogonal matrix and are trained alike, at the same learning rate; only the manifold
# differs. The plain matrix leaves the orthogonal ones in the first steps, and in this run it learns nothing.
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for name, orthogonal in (("plain matrix (SAM)", False), ("orthogonal matrix (RSAM)", True)):
    torch.manual_seed(0)
    model = Recurrent(orthogonal)
    optimizer = rsam.RSAM(model.parameters(), rsam.optim.RiemannianAdam, lr=0.01, rho=0.05)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), first)
        loss.backward()
        return loss

    losses, defects = [], []
    for _ in range(80):
        losses.append(optimizer.step(closure).item())
        w = model.recurrent.detach()
        defects.append((w.mT @ w - torch.eye(WIDTH)).norm().item())
    left.plot(losses, label=name)
    right.semilogy(defects)
left.set(title="Loss", xlabel="step", ylabel="cross-entropy")
right.set(title="Distance from orthogonality", xlabel="step", ylabel=r"$\|W^\top W - I\|$")
figure.legend(loc="outside lower center", ncols=2)
plt.show()
