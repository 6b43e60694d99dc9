"""Run the tests on one thread: their tensors are so tiny that several threads mostly wait."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def unshrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report the first case in which a property fails; to search for the simplest one takes most of the time."""
    monkeypatch.setattr("rsam.testing.running._simplest", lambda *_: None)
