"""That predicted times are those that were measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.run import Run
from benchmarks.studies.costs import seconds
from benchmarks.workloads.samples import Samples

PLAIN = Run(Samples("imagefolder:cifar10"), "sgd", 0, 0.03, 25)
SMALL = {"examples": 1_000, "width": 0.75}
#: Processor seconds of one run, on one core of a two-core machine that was busy with other things.
MEASURED = [
    (Run(Samples("imagefolder:cifar10", kernels="spheres"), "riemannian_sgd", 0, 0.03, 10), 5, 3.64),
    (Run(Samples("imagefolder:cifar10", kernels="stiefel"), "rsam", 0, 0.03, 10), 5, 7.86),
    (Run(Samples("fashion_mnist", kernels="spheres"), "rsam", 0, 0.03, 10), 5, 5.71),
    (Run(Samples("fashion_mnist", kernels="spheres", **SMALL), "rsam_angle", 0, 0.03, 6), 1, 1.37),
    (Run(Samples("fashion_mnist", kernels="spheres", examples=1_000, width=3.0), "rsam_angle", 0, 0.03, 6), 1, 5.47),
    (Run(Samples("fashion_mnist", kernels="spheres", batch_size=16, **SMALL), "rsam_angle", 0, 0.03, 6), 1, 3.11),
    (Run(Samples("fashion_mnist", kernels="spheres", depth=6, **SMALL), "rsam_angle", 0, 0.03, 6), 1, 2.02),
    (Run(Samples("fashion_mnist", **SMALL), "sgd", 0, 0.03, 6), 1, 0.68),
    (Run(Samples("mnist1d_anew", kernels="spheres", examples=1_000, width=1.5), "rsam_angle", 0, 0.03, 6), 1, 0.94),
    (PLAIN, 1, 7.4),
    (replace(PLAIN, workload=Samples("fashion_mnist")), 1, 6.0),
    (replace(PLAIN, workload=Samples("mnist1d_anew", examples=4_000, batch_size=100)), 1, 5.2),
    (replace(PLAIN, method="sam"), 1, 13.8),
    (replace(PLAIN, method="hessian_trace"), 1, 20.6),
    (replace(PLAIN, method="rsam", workload=Samples("imagefolder:cifar10", kernels="spheres")), 1, 15.2),
    (replace(PLAIN, method="rsam", workload=Samples("imagefolder:cifar10", kernels="stiefel")), 1, 16.9),
]


@pytest.mark.parametrize(("run", "evaluations", "measured"), MEASURED)
def test_that_predicted_seconds_are_those_measured(run, evaluations, measured) -> None:
    # one run each: times of a busy machine differ by a fifth or so
    assert seconds(run, evaluations) == pytest.approx(measured, rel=0.25)


def test_that_an_ascent_from_a_quarter_of_the_batch_in_every_second_step_costs_an_eighth() -> None:
    whole = Run(Samples("fashion_mnist", kernels="spheres"), "rsam", 0, 0.03, 10, rho=0.1)
    base = seconds(replace(whole, method="riemannian_sgd"))
    assert seconds(replace(whole, part=0.25, every=2)) - base == pytest.approx((seconds(whole) - base) / 8)
    assert seconds(replace(whole, late=0.6)) - base == pytest.approx(0.4 * (seconds(whole) - base))
