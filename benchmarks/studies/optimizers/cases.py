"""On what the methods are compared."""

from __future__ import annotations

from dataclasses import dataclass, replace

from benchmarks.methods import METHODS
from benchmarks.runs.configuration import Run

__all__ = ["ALL", "CHECK", "CHECKED", "LARGE", "LITTLE", "LITTLE_LARGE", "SMALL", "Case", "Contestant", "make_case"]

#: SAM of a peer takes the settings that are chosen for ours, to which it should be equal.
CHECK, CHECKED = "peer_sam", "sam"
ALL = tuple(METHODS)


@dataclass(frozen=True)
class Case:
    """Data, a network and a budget, on which methods are compared.

    Attributes
    ----------
    name, label : str
        For files, and for tables.
    template : Run
        All of a run but method, seed, learning rate and knob.
    methods : tuple of str
        Who competes.
    equal_gradients : bool
        Whether they also compete at as many gradient evaluations as SAM takes, tuned anew.
    main : bool
        Whether the verdicts look at it.
    """

    name: str
    label: str
    template: Run
    methods: tuple[str, ...] = ALL
    equal_gradients: bool = True
    main: bool = True

    def contestants(self) -> list[Contestant]:
        """Each method at the case's epochs, then at SAM's gradient evaluations those that cost more or less."""
        epochs = self.template.epochs
        found = [Contestant(self, name, epochs) for name in self.methods]
        for name in self.methods if self.equal_gradients else ():
            equal = round(epochs * METHODS[CHECKED].gradients / METHODS[name].gradients)
            if equal != epochs:
                found.append(Contestant(self, name, equal))
        return found


@dataclass(frozen=True)
class Contestant:
    """A method in a case, with a number of epochs."""

    case: Case
    method: str
    epochs: int

    @property
    def at_case_epochs(self) -> bool:
        """Whether it trains for the epochs of its case, not for as many as cost what SAM costs."""
        return self.epochs == self.case.template.epochs

    def run(self, lr: float, knob: float) -> Run:
        """The final run of seed 0 at a setting."""
        method = METHODS[self.method]
        run = replace(self.case.template, method=self.method, epochs=self.epochs, lr=lr)
        return replace(run, **{method.knob: knob})  # type: ignore[arg-type]  # the knobs are floats


def make_case(name: str, label: str, **options: object) -> Case:
    """A case whose other options are those of its runs."""
    methods = {key: options.pop(key) for key in ("methods", "equal_gradients", "main") if key in options}
    template = Run("", 0, 0.0, curvature=True, **options)  # type: ignore[arg-type]
    return Case(name, label, template, **methods)  # type: ignore[arg-type]


SMALL = (
    make_case("clean", "Fashion-MNIST mini", label_noise=0.0),
    make_case("noise20", "Fashion-MNIST mini, 20 % wrong labels", label_noise=0.2),
    make_case("noise40", "Fashion-MNIST mini, 40 % wrong labels", label_noise=0.4),
    make_case("mnist1d", "MNIST-1D", dataset="mnist1d", model="cnn_1d", label_noise=0.0, batch_size=100),
)

_LARGE = {"label_noise": 0.0, "batch_size": 128}
_LONG = {**_LARGE, "epochs": 100, "augment": True}

#: For machines with a GPU, or with patience.
LARGE = (
    make_case("fashion_mnist", "Fashion-MNIST, ResNet-8", dataset="fashion_mnist", model="resnet8", **_LARGE),
    make_case(
        "cifar10",
        "CIFAR-10, ResNet-20",
        dataset="cifar10",
        model="resnet20",
        **_LONG,
    ),
    make_case(
        "cifar10_plain",
        "CIFAR-10, ResNet-20 without batch norm",
        dataset="cifar10",
        model="plain_resnet20",
        **_LONG,
        main=False,
    ),
    make_case(
        "cifar100",
        "CIFAR-100, ResNet-18",
        dataset="cifar100",
        model="resnet18",
        **_LONG,
    ),
    make_case(
        "images",
        "the folder `images`, ResNet-18",
        dataset="imagefolder:images",
        model="resnet18",
        **_LONG,
    ),
)

#: Enough for every verdict to be asked.
FEW = ("sgd", "sam", "peer_sam", "gradient_norm", "hessian_trace", "rsam", "rsam_stiefel")

#: Each kind of data and every method once, for a smoke test.
LITTLE = (
    make_case("digits", "digits", dataset="digits", label_noise=0.0, epochs=4),
    make_case("noise20", "Fashion-MNIST mini, 20 % wrong labels", epochs=2, methods=FEW, equal_gradients=False),
    make_case(
        "mnist1d",
        "MNIST-1D",
        dataset="mnist1d",
        model="cnn_1d",
        label_noise=0.0,
        epochs=2,
        batch_size=100,
        methods=FEW,
        equal_gradients=False,
    ),
)

#: The same of the large ones, on 512 training examples and a network of eight layers.
LITTLE_LARGE = tuple(
    replace(
        case,
        label=f"{case.label} (in little: ResNet-8)",
        template=replace(
            case.template,
            epochs=1,
            examples=512,
            curvature=False,
            model="plain_resnet8" if case.template.model.startswith("plain") else "resnet8",
        ),
        methods=FEW,
        equal_gradients=False,
    )
    for case in LARGE
)
