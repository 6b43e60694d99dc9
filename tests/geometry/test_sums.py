"""That sums over lists of tensors are right for all kinds of numbers."""

from __future__ import annotations

import pytest
import torch

from rsam.geometry import pairing


def test_that_pairings_in_half_precision_neither_vanish_nor_overflow() -> None:
    for size in (1e-4, 1e3):
        u = torch.full((1000,), size, dtype=torch.float16)
        assert float(pairing([u], [2 * u])) == pytest.approx(2 * float(u.double().square().sum()), rel=1e-3)


def test_that_the_pairing_of_complex_numbers_is_that_of_their_parts() -> None:
    c, t = (torch.randn(3, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    expected = (torch.view_as_real(c) * torch.view_as_real(t)).sum()
    torch.testing.assert_close(pairing([c], [t]), expected)
