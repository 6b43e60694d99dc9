"""Time steps of the Riemannian optimizers beside geoopt's and torch's, with gradients already computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import geoopt
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

import rsam
from benchmarks.report.intervals import AsymmetricInterval
from benchmarks.report.table import markdown_table
from benchmarks.studies.overhead.section import Data, Section
from benchmarks.studies.overhead.timing import Times, interleaved, median_ratio, milliseconds, repeats_of, rounded

__all__ = ["CASES", "KINDS", "Case", "faster", "measure", "operations", "report"]

#: Why what is asked is not reached, for the page.
_WHY = """\
Why cases fall short: stacking points and gradients and writing points back takes half or more of the time that a factor
of 15 allows, before any arithmetic. Checks of gradients and manifolds take most of the rest. With large spheres, all
new points are computed before any is written, so that an exception leaves the parameters unchanged; geoopt writes each
point while it is still in the cache."""

#: Optimizers that are compared with the peer's of the same name.
KINDS = ("SGD", "Adam")
#: Learning rates so small that all steps start from nearly the same weights.
_SGD: dict[str, Any] = {"lr": 1e-4, "momentum": 0.9}
_ADAM: dict[str, Any] = {"lr": 1e-5}


@dataclass(frozen=True)
class Case:
    """Parameters to step, and the required speed.

    Attributes
    ----------
    label : str
        Label in the table.
    make : callable
        Makes the parameters.
    factor : float
        Required speed of a step as a multiple of the peer's.
    peer : str
        Peer that the factor refers to, ``"geoopt"`` or ``"torch"``.
    """

    label: str
    make: Callable[[], list[Tensor]]
    factor: float
    peer: str = "geoopt"


def _points(manifold: geoopt.Manifold, count: int, make: Callable[[], Tensor]) -> list[Tensor]:
    return [geoopt.ManifoldParameter(make(), manifold=manifold) for _ in range(count)]


def _frames(n: int, p: int) -> Callable[[], Tensor]:
    return lambda: torch.linalg.qr(torch.randn(n, p))[0]


def _positive(n: int) -> Callable[[], Tensor]:
    def make() -> Tensor:
        a = torch.randn(n, n)
        return torch.eye(n) + a @ a.mT / n

    return make


def _hyperboloid(n: int, d: int) -> Tensor:
    space = 0.3 * torch.randn(n, d)
    return torch.cat(((1 + space.square().sum(-1, keepdim=True)).sqrt(), space), -1)


CASES = (
    Case("200 spheres of 256", lambda: _points(geoopt.Sphere(), 200, lambda: normalize(torch.randn(256), dim=-1)), 15),
    Case("200 Euclidean Stiefel 8×4", lambda: _points(geoopt.EuclideanStiefel(), 200, _frames(8, 4)), 15),
    Case("100 Poincaré 64×16", lambda: _points(geoopt.PoincareBall(), 100, lambda: 0.1 * torch.randn(64, 16)), 6),
    Case("50 SPD 8×8", lambda: _points(geoopt.SymmetricPositiveDefinite(), 50, _positive(8)), 6),
    Case("50 Euclidean Stiefel 64×64", lambda: _points(geoopt.EuclideanStiefel(), 50, _frames(64, 64)), 1),
    Case("50 canonical Stiefel 64×64", lambda: _points(geoopt.CanonicalStiefel(), 50, _frames(64, 64)), 1),
    Case("one Euclidean Stiefel 512×512", lambda: _points(geoopt.EuclideanStiefel(), 1, _frames(512, 512)), 1),
    Case("20 spheres 64×576", lambda: _points(geoopt.Sphere(), 20, lambda: normalize(torch.randn(64, 576), dim=-1)), 1),
    Case("one Poincaré 20000×10", lambda: _points(geoopt.PoincareBall(), 1, lambda: 0.1 * torch.randn(20000, 10)), 1),
    Case("one Lorentz 20000×11", lambda: _points(geoopt.Lorentz(), 1, lambda: _hyperboloid(20000, 10)), 1),
    Case("200 plain of 256", lambda: [torch.nn.Parameter(torch.randn(256)) for _ in range(200)], 1 / 1.15, "torch"),
)


@dataclass(frozen=True)
class _Contender:
    """Optimizer that is stepped repeatedly with the same gradients."""

    step: Callable[[], object]
    # writes gradients anew, as backward does: geoopt changes them, and after backward they are in the cache
    refresh: Callable[[], object]


def _stepper(case: Case, make: Callable[..., Any], options: dict[str, Any]) -> _Contender:
    torch.manual_seed(0)
    params = case.make()
    for p in params:
        p.grad = 1e-3 * torch.randn_like(p)
    held, copies = [p.grad for p in params], [p.grad.clone() for p in params if p.grad is not None]
    return _Contender(make(params, **options).step, lambda: torch._foreach_copy_(held, copies))  # type: ignore[arg-type]


def _handling(case: Case) -> _Contender:
    """Do the part that every stacked step needs: gather points and gradients, and write points."""
    contender = _stepper(case, torch.optim.SGD, {"lr": 0.0})
    optimizer: torch.optim.Optimizer = contender.step.__self__  # type: ignore[attr-defined]
    params = optimizer.param_groups[0]["params"]
    gradients = [p.grad for p in params]
    rows = torch.stack([p.detach() for p in params]).unbind()

    @torch.no_grad()
    def handle() -> None:
        torch.stack(params)
        torch.stack(gradients)
        torch._foreach_copy_(params, rows)

    return _Contender(handle, contender.refresh)


def _contenders(case: Case) -> dict[str, _Contender]:
    parts = {
        "handling": _handling(case),
        "geoopt SGD": _stepper(case, geoopt.optim.RiemannianSGD, _SGD),
        "rsam SGD": _stepper(case, rsam.optim.RiemannianSGD, _SGD),
        "geoopt Adam": _stepper(case, geoopt.optim.RiemannianAdam, _ADAM),
        "rsam Adam": _stepper(case, rsam.optim.RiemannianAdam, _ADAM),
    }
    if case.peer == "torch":
        parts["torch SGD"] = _stepper(case, torch.optim.SGD, _SGD)
        parts["torch Adam"] = _stepper(case, torch.optim.Adam, _ADAM)
    return parts


class _Counter(TorchDispatchMode):
    """Counts torch operations, except the profiler's marks."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not str(func).startswith("profiler.")
        return func(*args, **(kwargs or {}))


def operations(step: Callable[[], object]) -> int:
    """Count the torch operations that the third call of a step dispatches, which are launches on a GPU."""
    step()
    step()
    with _Counter() as counter:
        step()
    return counter.count


def measure(repeats: int, warm_up: int) -> Data:
    """Time the steps of each case, and count their operations."""
    data: Data = {"geoopt": geoopt.__version__, "torch": torch.__version__, "cases": {}}
    for case in CASES:
        parts = _contenders(case)
        steps, before = ({name: getattr(part, what) for name, part in parts.items()} for what in ("step", "refresh"))
        times = rounded(interleaved(steps, repeats, warm_up, case.label, before))
        data["cases"][case.label] = {
            "operations": {kind: operations(parts[f"rsam {kind}"].step) for kind in KINDS},
            # large parameters are not stacked, and plain ones use torch's functions on lists
            "stacked": case.peer != "torch" and case.make()[0].numel() <= 2**14,
            "times": times,
        }
    return data


def faster(case: Case, times: Times, kind: str) -> AsymmetricInterval:
    """Return how many times as fast as the peer's optimizer of a kind ours is."""
    return median_ratio(times, f"{case.peer} {kind}", f"rsam {kind}")


def _row(case: Case, measured: Data) -> tuple[list[str], bool]:
    cells, times = [case.label], measured["times"]
    kept = True
    for kind in KINDS:
        factor = faster(case, times, kind)
        enough = factor.estimate >= case.factor
        kept = kept and enough
        cells += [
            f"{milliseconds(times, f'{case.peer} {kind}'):.2f}",
            f"{milliseconds(times, f'rsam {kind}'):.2f}",
            f"{factor:.2f}" + ("" if enough else ", short"),
            str(measured["operations"][kind]),
        ]
    handling = f"{milliseconds(times, 'handling'):.2f}" if measured["stacked"] else ""
    return [*cells, f"{case.factor:.2g}", handling], kept


def report(data: Data) -> Section:
    """Compare; a table and a verdict."""
    rows, short = [], []
    for case in CASES:
        cells, kept = _row(case, data["cases"][case.label])
        rows.append(cells)
        short += [] if kept else [case.label]
    header = (
        "parameters",
        "SGD, ms: peer",
        "ours",
        "factor",
        "ops",
        "Adam, ms: peer",
        "ours",
        "factor",
        "ops",
        "target",
        "handling, ms",
    )
    verdict = f"Below the target speed-up: {', '.join(short)}." if short else "Every case reaches its target speed-up."
    repeats = repeats_of(data["cases"][CASES[0].label]["times"])
    text = (
        f"Steps with precomputed gradients, float32, momentum 0.9; medians of {repeats} interleaved repeats. The peer "
        f"is geoopt {data['geoopt']}, or torch {data['torch']} for plain parameters. *factor*: the peer's time divided "
        "by ours, computed within each repeat; *short*: below the target. *ops*: torch operations that our step "
        "dispatches. *handling*: time of two stacks and one write of all points alone, the floor of a step."
        f"\n\n{markdown_table(header, rows)}\n\n{_WHY}"
    )
    return Section("Optimizers", text, verdict)
