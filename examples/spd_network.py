"""
A network of covariance matrices
================================

The data are signals of eight channels, in which the loudness of two hidden sources tells the class. The network takes
covariance matrices relative to a learned positive definite one, through orthonormal columns, to the matrix logarithm
(after Huang and Van Gool 2017).
"""

import geoopt
import matplotlib.pyplot as plt
import torch
from torch import nn

import rsam

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
labels = torch.arange(150) % 3
sources = torch.randn(150, 8, 60)
sources[:, 0] *= 1 + 0.8 * (labels == 1)[:, None]  # class 1 is louder in one source, class 2 in another
sources[:, 1] *= 1 + 0.8 * (labels == 2)[:, None]
signals = torch.randn(8, 8) @ sources  # each channel hears all of them
covariances = signals @ signals.mT / 60


class SPDNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        spd, stiefel = geoopt.SymmetricPositiveDefinite(), geoopt.EuclideanStiefel()
        self.centre = geoopt.ManifoldParameter(covariances.mean(0), manifold=spd)
        self.columns = geoopt.ManifoldParameter(torch.linalg.qr(torch.randn(8, 2))[0].contiguous(), manifold=stiefel)
        self.head = nn.Linear(3, 3)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        root = torch.linalg.cholesky(self.centre)
        white = torch.linalg.solve(root, torch.linalg.solve(root, x).mT)
        values, vectors = torch.linalg.eigh(self.columns.mT @ white @ self.columns)
        logarithm = (vectors * values.log().unsqueeze(-2)) @ vectors.mT
        return torch.stack([logarithm[:, 0, 0], logarithm[:, 1, 1], logarithm[:, 0, 1]], 1)


# %%
# One optimizer steps the positive definite matrix, the orthonormal columns and the linear layer, each by its metric.
model = SPDNetwork()
optimizer = rsam.RSAM(model.parameters(), lr=0.05, momentum=0.9, rho=0.05)


def closure() -> torch.Tensor:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model.head(model.features(covariances)), labels)
    loss.backward()
    return loss


figure, panels = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
for panel, steps in zip(panels, (0, 150), strict=True):
    for _ in range(steps):
        optimizer.step(closure)
    features = model.features(covariances).detach()
    accuracy = (model.head(features).argmax(1) == labels).double().mean()
    drawn = panel.scatter(*features[:, :2].T, c=labels, cmap="viridis", s=20)
    panel.set(title=f"after {steps} steps, train accuracy {accuracy:.0%}")
    panel.set(xlabel="first entry of the logarithm", ylabel="second entry of its diagonal")
handles, _ = drawn.legend_elements()
figure.legend(handles, [f"class {i}" for i in range(3)], loc="outside lower center", ncols=3)
plt.show()
