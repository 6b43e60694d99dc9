"""
A gap model's prediction
========================

How far are training examples from the decision boundary? From the distribution of these margins a linear model
predicts how much worse a network is on data that it has not seen (Jiang et al. 2019).
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

import rsam

pixels, digits = (torch.as_tensor(a) for a in load_digits(return_X_y=True))
pixels = pixels.float() / 16
test = pixels[1000:], digits[1000:]


def train(width: int, share: float, seed: int) -> tuple[nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """Fit a network to 150 digits, some of which have wrong labels."""
    torch.manual_seed(seed)
    chosen = torch.randperm(1000)[:150]
    wrong = torch.rand(150) < share
    data = pixels[chosen], torch.where(wrong, torch.randint(10, (150,)), digits[chosen])
    model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        cross_entropy(model(data[0]), data[1]).backward()
        optimizer.step()
    return model, data


# %%
# Forty-eight networks: four widths, four shares of wrong labels, three seeds.
gap_model = rsam.margins.GapModel(["input", "1"], kind="quartiles", log="signed", eps=1e-6)
features, gaps, shares, configurations = [], [], [], []
for width in (16, 32, 64, 128):
    for share in (0.0, 0.1, 0.2, 0.4):
        for seed in range(3):
            model, data = train(width, share, seed)
            accuracies = [float((model(x).argmax(1) == y).double().mean()) for x, y in (data, test)]
            features.append(gap_model.features(model, data))
            gaps.append(accuracies[0] - accuracies[1])
            shares.append(f"{share:.0%} wrong labels")
            configurations.append(f"{width}, {share}")

# %%
# Each gap is predicted by a model that saw no network of this configuration. The margins roughly tell shares of wrong
# labels apart, which the colours show. That they also rank networks of one colour is a stronger claim, which needs
# :doc:`a study </results/population>` that varies more than labels.
gap_model.fit(features, gaps, groups=configurations)
print(f"R² of held-out configurations: {gap_model.k_fold_r2(folds=16):.2f}")
figure = rsam.margins.plot_gaps(gap_model.held_out(folds=16), gaps, groups=shares)
figure.axes[0].set_title("Held-out configurations")
plt.figure(figure)
plt.show()
