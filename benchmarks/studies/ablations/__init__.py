"""Why RSAM does or does not beat SAM."""

from dataclasses import replace

from benchmarks.studies.ablations.study import AblationsStudy
from benchmarks.studies.optimizers import OPTIMIZERS, OptimizersStudy
from benchmarks.studies.optimizers.cases import make_case

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
    summary="why RSAM does or does not beat SAM: constraint, ascent, transport, tuning; 2 hours after `optimizers`",
    # in little: one case
    compared=replace(OPTIMIZERS, little=(replace(OPTIMIZERS.little[0], equal_gradients=False, methods=SOME),)),
    own=OptimizersStudy("ablations", "", "", cases=(PLAIN,), little=(LITTLE,), protocol=OPTIMIZERS.protocol),
)
