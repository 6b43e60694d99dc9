"""
A tree in the Poincaré disk
===========================

The levels of a binary tree grow as the circumference of a hyperbolic circle does, so that the tree fits into the disk.
RSAM over Riemannian Adam pulls every node to its ancestors and pushes it from all others (Nickel and Kiela 2017).
"""

import geoopt
import matplotlib.pyplot as plt
import torch

import rsam

NODES = 31
parents = {node: (node - 1) // 2 for node in range(1, NODES)}
pairs = []
for node in parents:
    ancestor = node
    while ancestor != 0:
        ancestor = parents[ancestor]
        pairs.append((node, ancestor))
nodes, ancestors = torch.tensor(pairs).T
related = torch.eye(NODES, dtype=torch.bool)
related[nodes, ancestors] = True

# %%
# The points are one parameter on geoopt's manifold, which the optimizer finds by itself.
torch.manual_seed(4)
disk = geoopt.PoincareBall()
points = geoopt.ManifoldParameter(1e-3 * torch.randn(NODES, 2, dtype=torch.float64), manifold=disk)
optimizer = rsam.RSAM([points], rsam.optim.RiemannianAdam, lr=0.05, rho=0.01)


def closure() -> torch.Tensor:
    optimizer.zero_grad()
    near = -disk.dist(points[nodes], points[ancestors])
    others = -disk.dist(points[nodes].unsqueeze(1), points.unsqueeze(0)).masked_fill(related[nodes], torch.inf)
    loss = (torch.logsumexp(torch.cat([near.unsqueeze(1), others], 1), 1) - near).mean()
    loss.backward()
    return loss


# %%
# Edges are geodesics: arcs that would meet the rim at right angles. Where some cross, descent has found a good
# embedding but not the best.
figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for panel, steps in zip(panels, (0, 130), strict=True):
    for _ in range(steps):
        optimizer.step(closure)
    where, along = points.detach(), torch.linspace(0, 1, 60, dtype=torch.float64).unsqueeze(1)
    for node, parent in parents.items():
        panel.plot(*disk.geodesic(along, where[node], where[parent]).T, color="0.6", linewidth=1)
    depth = (torch.arange(NODES) + 1).log2().floor()
    drawn = panel.scatter(*where.T, c=depth, cmap="viridis", zorder=2, s=25)
    panel.add_patch(plt.Circle((0, 0), 1, fill=False))
    panel.set(title=f"after {steps} steps, loss {closure().item():.2f}", aspect="equal")
    panel.set(xlabel="first coordinate", ylabel="second coordinate")
figure.colorbar(drawn, ax=panels, label="depth in the tree", ticks=range(5))
plt.show()
