"""What the study of cheap ascents measures beside accuracy: cosines of gradients, and processor time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

import rsam
from benchmarks.run import Run
from benchmarks.runs.results import Results
from benchmarks.runs.training import train, train_epoch
from benchmarks.studies.cheap import alignment, timing
from benchmarks.studies.cheap.alignment import Alignment, Cosines, cosines, measure_alignment
from benchmarks.studies.cheap.timing import Times, Timing, measure_times
from benchmarks.workloads.images import Images

DIGITS = Images("digits", "tiny_cnn", label_noise=0.0, batch_size=50, examples=200)
RUN = Run(DIGITS, "rsam", 0, 0.05, epochs=2, rho=0.1)


def test_that_the_cosine_is_that_of_two_vectors() -> None:
    model = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        model.weight.zero_()
    # at zero weights the gradient of the squared error is minus the mean of 2 y x: (1, 0) for the part, (1, 1) for all
    inputs, targets = torch.eye(2).double(), torch.ones(2, 1).double()
    assert cosines(model, mse_loss, (inputs, targets), [0.5]) == pytest.approx([2**-0.5], abs=1e-12)


def test_that_only_what_is_tangent_counts() -> None:
    model = nn.Conv1d(1, 1, 3, bias=False).double()
    rsam.nn.constrain(model, rsam.geometry.KernelSphere(), nn.Conv1d)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[[1.0, 0.0, 0.0]]]))
    inputs = torch.tensor([[[5.0, 3.0, 0.0]], [[-5.0, 3.0, 8.0]]]).double()

    def loss(outputs, targets):  # its gradient is the mean of the inputs: (5, 3, 0) for the part, (0, 3, 4) for all
        return outputs.mean()

    # across the weights these are (3, 0) and (3, 4)
    assert cosines(model, loss, (inputs, torch.zeros(2)), [0.5]) == pytest.approx([3 / 5], abs=1e-12)


def test_that_measuring_cosines_changes_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 3))
    batch = torch.rand(8, 1, 6, 6), torch.arange(8) % 3
    before = {name: t.clone() for name, t in model.state_dict().items()}
    (one,) = cosines(model, cross_entropy, batch, [1 / 4])
    assert -1 < one < 1
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(p.grad is None for p in model.parameters())


def test_that_cosines_are_measured_once_per_epoch_beside_training(monkeypatch) -> None:
    losses = []
    monkeypatch.setattr(alignment, "train_epoch", lambda *rest: losses.append(train_epoch(*rest)) or losses[-1])
    found = measure_alignment(Alignment(RUN, (1 / 4, 1 / 2)))
    assert [len(of_epoch) for of_epoch in found.by_epoch] == [2, 2]
    assert found.mean(1 / 2) == pytest.approx(sum(of_epoch[1] for of_epoch in found.by_epoch) / 2)
    assert 0 < found.mean(1 / 4) < found.mean(1 / 2) < 1
    assert losses == train(RUN).curves["loss"]  # as if nothing had been measured


def test_that_rows_of_measurements_are_read_back(tmp_path) -> None:
    parts, times = Alignment(RUN, (1 / 4,)), Timing((RUN, replace(RUN, seed=1)), 3)
    cosines_row, times_row = Cosines(parts, [[0.5]], 1.0), Times(times, [1.0, 2.0], 3.0, 1.0)
    for kind, row in ((Cosines, cosines_row), (Times, times_row)):
        results: Results = Results(tmp_path / f"{kind.__name__}.jsonl", kind)
        results.append(row)
        assert results.find([row.run]) == {row.run: row}
    assert Alignment(replace(RUN, rho=0.2), (1 / 4,)).key != parts.key != Alignment(RUN, (1 / 8,)).key


def test_that_times_are_in_steps_of_the_first_network(monkeypatch) -> None:
    # a clock that counts the examples whose loss is differentiated
    monkeypatch.setattr(timing, "STEPS", 2)
    base, momentum = (replace(RUN, method=method) for method in ("riemannian_sgd", "rsam_momentum"))
    runs = (base, RUN, replace(RUN, part=0.5, every=2), momentum)
    seen = [0]

    def counting(model, optimizer, inputs, targets, **options):
        closure = make(model, optimizer, inputs, targets, **options)

        def counted():
            seen[0] += len(inputs)
            return closure()

        return counted

    make = timing.gradient_closure
    monkeypatch.setattr(timing, "gradient_closure", counting)
    monkeypatch.setattr(timing.time, "process_time", lambda: float(seen[0]))
    found = measure_times(Timing(runs, blocks=2))
    assert found.ratios == pytest.approx([1, 2, 1.25, 1])
