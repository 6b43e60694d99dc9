"""That the SPD network computes the paper's formulas."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch

from benchmarks.workloads.manifolds import MANIFOLDS
from benchmarks.workloads.spd.network import FLOOR, SPDNetwork


def network(features: int = 3) -> SPDNetwork:
    torch.manual_seed(0)
    return SPDNetwork(4, features, 2, MANIFOLDS["stiefel"]())


def matrices(count: int = 3) -> torch.Tensor:
    factor = torch.randn(count, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return factor @ factor.mT / 6 + 0.1 * torch.eye(4, dtype=torch.float64)


def test_that_logits_are_linear_in_the_logarithm_of_the_bilinear_map() -> None:
    model = network()
    with torch.no_grad():
        model.centre.copy_(matrices(1)[0])
    root = np.linalg.cholesky(model.centre.detach().numpy())
    w = model.bilinear.detach().numpy()
    expected = []
    for x in matrices().numpy():
        white = np.linalg.solve(root, np.linalg.solve(root, x).T)
        logarithm = scipy.linalg.logm(w.T @ white @ w)
        rows, columns = np.tril_indices(3)
        vector = logarithm[rows, columns] * np.where(rows == columns, 1, np.sqrt(2))
        expected.append(model.head.weight.detach().numpy() @ vector + model.head.bias.detach().numpy())
    np.testing.assert_allclose(model(matrices()).detach(), expected, rtol=0, atol=1e-12)


def test_that_the_feature_vector_is_as_long_as_the_matrix() -> None:
    model = network(4)
    vectors = []
    model.head.register_forward_pre_hook(lambda _, inputs: vectors.append(inputs[0]))
    model(matrices())
    # under a square orthogonal map the logarithm keeps its norm
    expected = [np.linalg.norm(scipy.linalg.logm(x)) for x in matrices().numpy()]
    np.testing.assert_allclose(vectors[0].detach().norm(dim=1), expected, rtol=1e-12)


def test_that_small_eigenvalues_are_raised() -> None:
    model = network(4)
    values = []
    model.head.register_forward_pre_hook(lambda _, inputs: values.append(inputs[0]))
    flat = torch.diag(torch.tensor([1.0, 1.0, 1.0, 1e-12], dtype=torch.float64))
    model(flat[None])
    assert float(values[0].detach().norm()) == pytest.approx(abs(np.log(FLOOR)), rel=1e-6)


@pytest.mark.parametrize("place", ["stiefel", "canonical"])
def test_that_both_kinds_of_parameters_are_on_manifolds(place) -> None:
    model = SPDNetwork(4, 3, 2, MANIFOLDS[place]())
    kinds = {name: type(p.manifold) for name, p in model.named_parameters() if hasattr(p, "manifold")}
    assert kinds == {"centre": MANIFOLDS["spd"], "bilinear": MANIFOLDS[place]}
