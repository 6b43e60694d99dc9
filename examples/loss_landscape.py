"""
A loss landscape along geodesics
================================

The picture shows the loss on a plane of geodesics through the trained weights: kernels turn on their spheres, plain
weights move straight. Of all such planes it is the one nearest to the path of training.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import rsam
from rsam.curvature import landscape

torch.manual_seed(0)
images, labels = (torch.as_tensor(a)[:300] for a in load_digits(return_X_y=True))
images = images.float().reshape(-1, 1, 8, 8) / 16
model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(54, 10))
model = rsam.nn.constrain(model, rsam.geometry.KernelSphere(), nn.Conv2d)
optimizer = rsam.RSAM(model.parameters(), lr=0.5, momentum=0.9, rho=0.05)


def closure() -> torch.Tensor:
    optimizer.zero_grad()
    loss = cross_entropy(model(images), labels)
    loss.backward()
    return loss


checkpoints = []
for _ in range(80):
    checkpoints.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
    optimizer.step(closure)

# %%
# ``trajectory_directions`` maps the checkpoints to the tangent space at the end by logarithms, and finds the two
# directions in which they extend most. ``plane`` and ``line`` evaluate the loss, and leave the model as it was.
problem = (model, cross_entropy, list(model.parameters()), (images, labels))
trajectory = landscape.trajectory_directions(model.named_parameters(), checkpoints)
path = landscape.plane(*problem, trajectory, steps=25)
print("share of the path in the plane:", trajectory.explained_variance.sum().round(3))

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
path.plot(left, log=True).set_title("Plane of the trajectory")
for seed in range(4):
    landscape.line(*problem, "random", extent=4.0, steps=31, seed=seed).plot(right, label=f"direction {seed}")
right.set_title("Random geodesics from its end")
figure.legend(loc="outside lower center", ncols=4)
plt.show()
