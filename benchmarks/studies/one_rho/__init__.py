"""What one rho for everything costs: regret of not tuning it again, method by method."""

from benchmarks.studies.one_rho.design import AXES, CANDIDATES, Design, levels
from benchmarks.studies.one_rho.rules import CHOSEN
from benchmarks.studies.one_rho.study import OneRhoStudy

__all__ = ["ONE_RHO"]

#: On sets that are held back: both ends of every axis, at which rho is most likely to be wrong.
_ENDS = {axis: (values[0], values[1] if axis == "width" else values[-1]) for axis, values in AXES.items()}
_FURTHER = tuple(range(2, 8))

ONE_RHO = OneRhoStudy(
    name="one-rho",
    summary="what does it cost not to tune rho again? SAM, ASAM, and RSAM by angle; 2 hours on 2 cores",
    development=Design("Fashion-MNIST", "fashion_mnist", levels(AXES), {c.name: c.rhos for c in CANDIDATES}),
    held_back=(
        Design("CIFAR-10 (JPEG)", "imagefolder:cifar10", levels(_ENDS), {}, further=_FURTHER),
        Design("MNIST-1D", "mnist1d_anew", levels(_ENDS), {}, epochs=24, further=_FURTHER),
    ),
    chosen=CHOSEN,
)
