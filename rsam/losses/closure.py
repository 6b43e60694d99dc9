"""Evaluate a closure at other weights for differences, and choose steps for its precision."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from rsam import geometry
from rsam.evaluation import at_points, isolated
from rsam.evaluation.isolation import Buffers, recording
from rsam.evaluation.parameters import check_dtypes
from rsam.evaluation.random_state import random_state, set_random_state
from rsam.evaluation.reach import graph_of

__all__ = ["Evaluations", "full_precision", "reached", "step_length", "step_per_weight"]


class Evaluations:
    """Values and gradients of a function of the parameters, at their present values and at others.

    All evaluations start from the random state and the buffers at which the first one started: layers such as spectral
    norm in train mode compute with buffers that they update. Gradients are those in the parameters, which are moved,
    followed by those in ``others``, all further leaves that the function depends on. For example, a penalty on the
    gradient in the weights depends on the biases too.

    Parameters
    ----------
    closure : callable
        Evaluates the model.
    subject_of : callable
        Takes what the closure returned and returns the function's value.
    differentiate : callable
        ``differentiate(tensor, leaves, cotangent, retain_graph)`` returns a gradient, None for each leaf that the
        tensor does not depend on.
    space : rsam.geometry.Product
        The parameters; :meth:`gradient_here` leaves out those that the function does not depend on.
    """

    def __init__(
        self,
        closure: Callable[[], Any],
        subject_of: Callable[[Any], Tensor],
        differentiate: Callable[[Tensor, list[Tensor], Tensor | None, bool], list[Tensor | None]],
        space: geometry.Product,
    ) -> None:
        self._closure, self._subject_of, self._differentiate = closure, subject_of, differentiate
        self.space = space
        self.params = space.params
        self.others: list[Tensor] = []
        self._state = random_state()
        self._buffers: Buffers = {}
        self._dtypes: set[torch.dtype] = set()
        self._convolves = False
        # autograd numbers its nodes in the order in which they are made
        self._since = _node_number()
        self._shares = False

    def here(self) -> Any:
        """Call the closure at the present parameters, and return its result."""
        kinds = {p.device.type for p in self.params}
        self._dtypes |= {torch.get_autocast_dtype(kind) for kind in kinds if torch.is_autocast_enabled(kind)}
        with recording() as self._buffers:
            return self._closure()

    def gradient_here(
        self, subject: Tensor, cotangent: Tensor | None = None, retain_graph: bool = False
    ) -> list[Tensor]:
        """Return the gradient of the function at the present parameters, and find the ``others``.

        Raises
        ------
        ValueError
            If the function would not follow a parameter that is moved, depends on no parameter at all, or was computed
            in float16.
        """
        graph = graph_of(subject, self._since)
        check_dtypes(graph.dtypes)
        self._shares, self._convolves = graph.shares, graph.convolves
        self._dtypes |= graph.dtypes
        for i, p in enumerate(self.params):
            if id(p) in graph.early:
                raise ValueError(
                    f"the closure depends on {self.space.describe(i)} through what was computed before it was called: "
                    "compute that within the closure, or leave the parameter out of params"
                )
        members = {id(p) for p in self.params}
        self.others = [leaf for leaf in graph.leaves if id(leaf) not in members]
        gradient = self._gradient(subject, cotangent, retain_graph)
        own, further = gradient[: len(self.params)], gradient[len(self.params) :]
        self.space, in_params = reached(self.space, own)
        self.params = self.space.params
        self.others = [leaf for leaf, g in zip(self.others, further, strict=True) if g is not None]
        return in_params + [g for g in further if g is not None]

    def __call__(
        self, points: Sequence[Tensor], gradient: list[Tensor], cotangent: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return value and gradient with the parameters at ``points``, without side effects.

        ``gradient`` is the gradient at the present parameters.
        """
        with isolated(start=self._buffers), at_points(self.params, points):
            set_random_state(self._state)
            subject = self._subject_of(self._closure())
            moved = self._gradient(subject, cotangent)
        # a leaf that is made anew in each evaluation, or not used in this one, keeps its gradient
        return subject.detach(), [h if g is None else g for g, h in zip(moved, gradient, strict=True)]

    def _gradient(self, subject: Tensor, cotangent: Tensor | None, retain_graph: bool = False) -> list[Tensor | None]:
        # keep a graph of which a part was made outside the closure and is still needed there; free others, since
        # compiled functions demand it
        retain_graph = retain_graph or self._shares
        return self._differentiate(subject, [*self.params, *self.others], cotangent, retain_graph)

    def rounding(self) -> float:
        """Return the coarsest rounding error of the evaluation at the present parameters."""
        dtypes = {*self._dtypes, *(p.dtype for p in self.params)}
        coarsest = max(torch.finfo(dtype).eps for dtype in dtypes)
        single = torch.float32 in dtypes and any(_in_tf32(p.device, self._convolves) for p in self.params)
        return max(coarsest, _TF32) if single else coarsest

    def check_repeats(self, subject: Tensor, name: str) -> None:
        """Evaluate again at the present parameters, and refuse another result than ``subject``.

        What differs between evaluations, divided by the step of a difference, would be noise of any size.

        Raises
        ------
        RuntimeError
            Says what a closure may not do; ``name`` is that of the penalty.
        """
        with isolated(start=self._buffers):
            set_random_state(self._state)
            again = self._subject_of(self._closure())
        first = subject.detach()
        if first.shape == again.shape:
            first, again = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (first, again.detach()))
            # the default step is that part of the weights; kernels of accelerators that add up in any order differ less
            if not (again - first).norm() > math.sqrt(self.rounding()) * first.norm():  # NaN is refused later
                return
        raise RuntimeError(
            f"{name} by differences: the closure gave another result when it was called again at the same weights; it "
            "must use the same batch in each call, no random generator of its own, and no state that a call changes"
        )


def reached(space: geometry.Product, gradient: Sequence[Tensor | None]) -> tuple[geometry.Product, list[Tensor]]:
    """Leave out parameters without a gradient, for example those of an expert that the batch does not use.

    Without a gradient of the loss they should get none of the penalty, not even a zero one, on which an optimizer would
    act.

    Raises
    ------
    ValueError
        If there is no gradient at all.
    """
    indices = [i for i, g in enumerate(gradient) if g is not None]
    if not indices:
        others = ", nor on any other of params" if len(gradient) > 1 else ""
        raise ValueError(f"the loss does not depend on {space.describe(0)}{others}")
    present = [g for g in gradient if g is not None]
    return (space if len(present) == len(gradient) else space.part(indices)), present


def full_precision(params: Sequence[Tensor]) -> ExitStack:
    """Return a context without autocast, since geometry and second derivatives need full precision."""
    stack = ExitStack()
    for kind in {params[0].device.type, "cpu"}:
        if torch.is_autocast_enabled(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
    return stack


def step_per_weight(params: Sequence[Tensor], rounding: float) -> float:
    r"""Return :math:`\varepsilon^{1/4}` times the root mean square of the parameters' entries, for second differences.

    The rounding error :math:`\varepsilon` is the coarsest in an evaluation.
    """
    return math.pow(rounding, 0.25) * _norm(params) / math.sqrt(_count(params))


def step_length(params: Sequence[Tensor], rounding: float) -> float:
    r"""Return :math:`\varepsilon^{1/2}` times the norm of the parameters, for first differences."""
    return math.sqrt(rounding) * _norm(params)


def _count(params: Sequence[Tensor]) -> int:
    return max(sum(p.numel() for p in params), 1)


def _norm(params: Sequence[Tensor]) -> float:
    norms = torch._foreach_norm([p.detach() for p in params])
    total = math.hypot(*torch.stack([n.to(norms[0].device, torch.float32) for n in norms]).tolist())
    return total or math.sqrt(_count(params))  # if all weights are zero, as if all were one


def _node_number() -> int:
    """Return the number that autograd gives to a node made now in this thread; 0 in inference mode, without nodes."""
    node = torch.ones((), requires_grad=True).clone().grad_fn
    return 0 if node is None else node._sequence_nr()


# Distance of numbers around 1 that have the 10 bits of TF32.
_TF32 = 2.0**-10


def _in_tf32(device: torch.device, convolves: bool) -> bool:
    """Tell whether a device multiplies float32 matrices, or those of convolutions, in TF32."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    settings: Any = torch.backends
    chosen = [settings.cuda.matmul]
    if convolves:
        cudnn = settings.cudnn
        chosen += [cudnn.conv, cudnn.rnn] if hasattr(cudnn, "conv") else [cudnn]
    for backend in chosen:
        precision = getattr(backend, "fp32_precision", None)  # from torch 2.9 on, where allow_tf32 may raise
        if precision == "none":
            precision = settings.fp32_precision
        if precision == "tf32" or (precision is None and backend.allow_tf32):
            return True
    return False
