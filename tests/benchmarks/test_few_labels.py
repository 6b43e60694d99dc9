"""That few labels are trained on, others validate, and hyperplanes of the Poincaré ball separate classes."""

from __future__ import annotations

import geoopt
import numpy as np
import pytest
import torch
from geoopt.layers.stereographic import Distance2StereographicHyperplanes
from torch import Tensor

from benchmarks.data import load
from benchmarks.workloads.hyperbolic import classification


def few(monkeypatch, seed: int, heldout: str) -> tuple[list[int], tuple[Tensor, Tensor]]:
    """Return indices of the labelled images in the training part, and the data to score on; check the batches."""
    monkeypatch.setattr(classification, "accuracies", lambda model, sets: sets)
    problem = classification.FewLabels(4).prepare(seed, heldout)  # type: ignore[arg-type]
    images, labels = problem.scores()["train_"]
    batches = [torch.cat(parts) for parts in zip(*problem.batches(0), strict=True)]
    assert sorted(indices_of(batches[0], batches[1])) == sorted(indices_of(images, labels))
    return indices_of(images, labels), problem.scores()[""]


def indices_of(images: Tensor, labels: Tensor) -> list[int]:
    data = load("digits")
    known = {image.numpy().tobytes(): i for i, image in enumerate(data.train_images)}
    assert len(known) == 1200
    indices = [known[image.numpy().tobytes()] for image in images]
    assert torch.equal(data.train_labels[indices], labels)
    return indices


def test_that_ten_labels_per_class_are_trained_on_and_others_validate(monkeypatch) -> None:
    data = load("digits")
    train, test = few(monkeypatch, 0, "test")
    assert data.train_labels[train].bincount().tolist() == [10] * 10 and len(set(train)) == 100
    assert torch.equal(test[0], data.heldout_images) and torch.equal(test[1], data.heldout_labels)
    again, validation = few(monkeypatch, 0, "validation")
    held = indices_of(*validation)
    assert again == train and not set(held) & set(train)
    assert data.train_labels[held].bincount().tolist() == [10] * 10 and len(set(held)) == 100
    assert len(set(few(monkeypatch, 1, "test")[0]) & set(train)) < 30  # of 100 of 1200


def test_that_logits_are_signed_distances_to_planes_of_the_ball() -> None:
    torch.manual_seed(0)
    model = classification.HyperbolicClassifier(64, 4, 10).double()
    assert isinstance(model.planes, Distance2StereographicHyperplanes)
    points = model.planes.points
    assert isinstance(points, geoopt.ManifoldParameter) and isinstance(points.manifold, geoopt.PoincareBall)
    assert (points.norm(dim=1) < 1).all() and points.shape == (10, 4)
    x = torch.randn(6, 1, 8, 8, dtype=torch.float64)
    features = model.features(model.hidden(x.flatten(1)).clamp(min=0)).detach().numpy()
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    carried = np.tanh(norm) * features / norm
    p = points.detach().numpy()
    for i, k in ((0, 0), (3, 7), (5, 9)):
        # Ganea, Becigneul and Hofmann (2018), section 3.1, with the normal along p
        dot, pp, zz = -p[k] @ carried[i], p[k] @ p[k], carried[i] @ carried[i]
        moved = ((1 + 2 * dot + zz) * -p[k] + (1 - pp) * carried[i]) / (1 + 2 * dot + pp * zz)
        expected = np.arcsinh(2 * (moved @ p[k]) / ((1 - moved @ moved) * np.sqrt(pp)))
        assert float(model(x)[i, k].detach()) == pytest.approx(expected, rel=1e-6)
