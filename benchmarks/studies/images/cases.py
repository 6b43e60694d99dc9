"""Define the cases: data sets and networks on which methods are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.run import Run
from benchmarks.runs.measurement import CURVES, MEASURES
from benchmarks.studies.comparison.cases import Case
from benchmarks.studies.images.contestants import CONTESTANTS, at_equal_gradients
from benchmarks.workloads.images import Images, as_images

__all__ = ["LARGE", "QUICK_CASES", "QUICK_LARGE_CASES", "SMALL", "make_case"]

#: Measures of the final runs.
_MEASURES = (CURVES, *MEASURES)


def make_case(
    name: str,
    label: str,
    workload: Images,
    epochs: int = 25,
    *,
    methods: Sequence[str] = tuple(CONTESTANTS),
    equal_gradients: bool = True,
    main: bool = True,
    measures: tuple[str, ...] = _MEASURES,
) -> Case:
    """Make a case of named contestants; ``equal_gradients`` adds each, trained for as many gradients as SAM."""
    template = Run(workload, "", 0, 0.0, epochs, weight_decay=5e-4, measures=measures)
    contestants = [CONTESTANTS[method] for method in methods]
    at_equal = [at_equal_gradients(c) for c in contestants] if equal_gradients else []
    return Case(name, label, template, (*contestants, *(c for c in at_equal if c.passes != 1)), main=main)


_SIGNALS = Images("mnist1d", "cnn_1d", label_noise=0.0, batch_size=100)
SMALL = (
    make_case("clean", "Fashion-MNIST mini", Images(label_noise=0.0)),
    make_case("noise20", "Fashion-MNIST mini, 20 % wrong labels", Images(label_noise=0.2)),
    make_case("noise40", "Fashion-MNIST mini, 40 % wrong labels", Images(label_noise=0.4)),
    make_case("mnist1d", "MNIST-1D", _SIGNALS),
)


def _large(dataset: str, model: str, augment: bool = True) -> Images:
    return Images(dataset, model, label_noise=0.0, batch_size=128, augment=augment)


#: For machines with a GPU, or with patience.
LARGE = (
    make_case("fashion_mnist", "Fashion-MNIST, ResNet-8", _large("fashion_mnist", "resnet8", augment=False)),
    make_case("cifar10", "CIFAR-10, ResNet-20", _large("cifar10", "resnet20"), 100),
    make_case(
        "cifar10_plain",
        "CIFAR-10, ResNet-20 without batch norm",
        _large("cifar10", "plain_resnet20"),
        100,
        main=False,
    ),
    make_case("cifar100", "CIFAR-100, ResNet-18", _large("cifar100", "resnet18"), 100),
    make_case("images", "the folder `images`, ResNet-18", _large("imagefolder:images", "resnet18"), 100),
)

#: Methods that the verdicts compare.
JUDGED = ("sgd", "sam", "peer_sam", "gradient_norm", "hessian_trace", "rsam", "rsam_stiefel")

#: Each kind of data and each method once, for a smoke test.
QUICK_CASES = (
    make_case("digits", "digits", Images("digits", label_noise=0.0), 4),
    make_case("noise20", "Fashion-MNIST mini, 20 % wrong labels", Images(), 2, methods=JUDGED, equal_gradients=False),
    make_case("mnist1d", "MNIST-1D", _SIGNALS, 2, methods=JUDGED, equal_gradients=False),
)


def _quick_version(case: Case) -> Case:
    workload = as_images(case.template.workload)
    model = "plain_resnet8" if workload.model.startswith("plain") else "resnet8"
    return make_case(
        case.name,
        f"{case.label} (quick version: ResNet-8)",
        replace(workload, examples=512, model=model),
        1,
        methods=JUDGED,
        equal_gradients=False,
        main=case.main,
        measures=(CURVES,),
    )


#: A smoke test of the large cases, on 512 training examples and a network of eight layers.
QUICK_LARGE_CASES = tuple(map(_quick_version, LARGE))
