"""Why RSAM does or does not beat SAM."""

from dataclasses import replace

from benchmarks.methods import METHODS
from benchmarks.studies.ablations.study import AblationsStudy
from benchmarks.studies.optimizers import OPTIMIZERS, OptimizersStudy
from benchmarks.studies.optimizers.cases import make_case
from benchmarks.studies.optimizers.grids import grid

__all__ = ["ABLATIONS", "AblationsStudy"]

#: Each weight space with and without its ascent, and the ascent in the ambient space.
SOME = (
    "sgd", "sam",
    "riemannian_sgd", "rsam", "ambient_sam",
    "riemannian_sgd_stiefel", "rsam_stiefel", "ambient_sam_stiefel",
)  # fmt: skip

# With batch norm the gradient of a filter is tangent to its sphere by itself, so that an ascent in the ambient space
# leaves it in second order only. Without, the two differ.
PLAIN = make_case(
    "plain20",
    "Fashion-MNIST mini, 20 % wrong labels, no batch norm",
    label_noise=0.2,
    model="small_plain_cnn",
    methods=SOME,
    equal_gradients=False,
    main=False,
)
# There every method of the comparison chose its largest learning rate, and those with an ascent their smallest rho.
WIDE = make_case(
    "mnist1d_moved",
    "MNIST-1D, grids moved to larger rates and smaller rho",
    dataset="mnist1d",
    model="cnn_1d",
    label_noise=0.0,
    batch_size=100,
    methods=tuple(name for name in SOME if not name.startswith("ambient")),
    equal_gradients=False,
    main=False,
)


def moved(method: str) -> list[tuple[float, float]]:
    """As many settings as in the comparison, about what was chosen on MNIST-1D."""
    rates, knobs = zip(*grid(METHODS[method]), strict=True)
    if METHODS[method].knob == "rho":
        knobs = tuple(rho / 8 for rho in knobs)
    return [(10 * lr, knob) for lr, knob in zip(rates, knobs, strict=True)]


LITTLE = make_case(
    "digits",
    "digits, no batch norm",
    dataset="digits",
    model="small_plain_cnn",
    label_noise=0.0,
    epochs=2,
    methods=SOME,
    equal_gradients=False,
    main=False,
)

ABLATIONS = AblationsStudy(
    name="ablations",
    summary="why RSAM does or does not beat SAM: constraint, ascent, transport, tuning; 1 hour after `optimizers`",
    # in little: one case
    compared=replace(OPTIMIZERS, little=(replace(OPTIMIZERS.little[0], equal_gradients=False, methods=SOME),)),
    own=(
        OptimizersStudy("ablations", "", "", cases=(PLAIN,), little=(LITTLE,), protocol=OPTIMIZERS.protocol),
        OptimizersStudy("ablations", "", "", cases=(WIDE,), little=(), protocol=OPTIMIZERS.protocol, settings=moved),
    ),
)
