"""Time training steps with a penalty in units of plain steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn.functional import cross_entropy

import rsam
from benchmarks.studies.overhead.networks import BATCH, network
from benchmarks.studies.overhead.section import Data, Section
from benchmarks.studies.overhead.timing import compared, interleaved, ratios_to, repeats_of, rounded

__all__ = ["measure", "report"]

LIMITS = {"gradient norm, difference": 2.3, "Hessian trace, difference": 3.3}
# a learning rate so small that all steps start from nearly the same weights
_RATE = 1e-5
_WEIGHT = 1e-3


def _step(make: Callable[[Any], Any] | None, outputs_too: bool = False, method: str = "sgd") -> Callable[[], object]:
    """Make a training step of a new network, with the penalty that ``make`` returns for its parameters, if any."""
    model, optimizer, (images, labels) = network(method, _RATE)
    penalty = None if make is None else make(model.parameters())

    def loss() -> Any:
        outputs = model(images)
        value = cross_entropy(outputs, labels)
        return (value, outputs) if outputs_too else value

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = loss() if penalty is None else penalty.objective(loss)
        total.backward()
        return total

    return lambda: optimizer.step(closure)


def measure(repeats: int, warm_up: int) -> Data:
    """Time steps with each penalty."""
    losses = rsam.losses

    def with_penalty(kind: Any, **options: Any) -> Callable[[Any], Any]:
        return lambda params: kind(params, weight=_WEIGHT, **options)

    parts: dict[str, Callable[[], object]] = {
        "plain": _step(None),
        "SAM": _step(None, method="sam"),
    }
    for method in ("difference", "exact"):
        parts |= {
            f"gradient norm, {method}": _step(with_penalty(losses.GradientNorm, method=method)),
            f"Hessian trace, {method}": _step(with_penalty(losses.HessianTrace, method=method)),
            f"Fisher trace, {method}": _step(with_penalty(losses.FisherTrace, method=method), outputs_too=True),
        }
    parts["sharpness"] = _step(with_penalty(losses.Sharpness, rho=0.01))
    return {"batch": BATCH, "times": rounded(interleaved(parts, repeats, warm_up, "penalties"))}


def report(data: Data) -> Section:
    """Compare; a table and verdicts."""
    times = data["times"]
    ratios = ratios_to(times, "plain")
    table = compared(times, "plain", ("training step", "ms", "plain steps"), decimals=2)
    verdicts = [
        f"A step with *{name}* takes {'' if ratios[name].estimate <= limit else 'NOT '}at most {limit} plain steps."
        for name, limit in LIMITS.items()
    ]
    text = (
        f"Medians of {repeats_of(times)} interleaved repeats, small_cnn in training mode, batch "
        f"{data['batch']}, SGD, one probe, through `objective`. *difference*: by finite differences.\n\n{table}"
    )
    return Section("Penalties", text, " ".join(verdicts))
