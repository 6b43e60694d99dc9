"""Explain why RSAM does or does not beat SAM: cases of the ablations."""

from dataclasses import replace

from benchmarks.run import Knob
from benchmarks.studies.ablations.study import AblationsStudy
from benchmarks.studies.comparison.cases import Case, Contestant, Grid
from benchmarks.studies.images import OPTIMIZERS
from benchmarks.studies.images.cases import make_case
from benchmarks.workloads.images import Images

__all__ = ["ABLATIONS", "AblationsStudy"]

#: Each weight space with and without its ascent, and the ascent in the ambient space.
SPACES = (
    "sgd", "sam",
    "riemannian_sgd", "rsam", "ambient_sam",
    "riemannian_sgd_stiefel", "rsam_stiefel", "ambient_sam_stiefel",
)  # fmt: skip

# With batch norm the gradient of a filter is tangent to its sphere by itself, so that an ascent in the ambient space
# leaves the sphere to second order only. Without batch norm the two ascents differ.
NO_BATCH_NORM = make_case(
    "plain20",
    "Fashion-MNIST mini, 20 % wrong labels, no batch norm",
    Images(model="small_plain_cnn"),
    methods=SPACES,
    equal_gradients=False,
    main=False,
)


def moved(contestant: Contestant) -> Contestant:
    """Move a contestant's grid to the settings that tuning chose on MNIST-1D, keeping its size."""
    grid = contestant.grid
    assert isinstance(grid, Grid)
    values = tuple(rho / 8 for rho in grid.values) if grid.knob is Knob.RHO else grid.values
    return replace(contestant, grid=replace(grid, rates=tuple(10 * lr for lr in grid.rates), values=values))


def _moved() -> Case:
    case = make_case(
        "mnist1d_moved",
        "MNIST-1D, grids moved to larger rates and smaller rho",
        Images("mnist1d", "cnn_1d", label_noise=0.0, batch_size=100),
        methods=[name for name in SPACES if not name.startswith("ambient")],
        equal_gradients=False,
        main=False,
    )
    return replace(case, contestants=tuple(map(moved, case.contestants)))


# On MNIST-1D every method chose its largest learning rate, and those with an ascent chose their smallest rho.
MOVED = _moved()
QUICK_CASES = make_case(
    "digits",
    "digits, no batch norm",
    Images("digits", "small_plain_cnn", label_noise=0.0),
    2,
    methods=SPACES,
    equal_gradients=False,
    main=False,
)
# the quick version compares methods on one case
_QUICK_COMPARED = make_case(
    "digits", "digits", Images("digits", label_noise=0.0), 4, methods=SPACES, equal_gradients=False
)

ABLATIONS = AblationsStudy(
    name="ablations",
    summary="why RSAM does or does not beat SAM: constraint, ascent, transport, tuning; 1 hour after `optimizers`",
    compared=replace(OPTIMIZERS, quick_cases=(_QUICK_COMPARED,)),
    own=replace(OPTIMIZERS, name="ablations", cases=(NO_BATCH_NORM, MOVED), quick_cases=(QUICK_CASES,)),
)
