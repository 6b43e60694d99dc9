"""Define the base class of all penalties, with their parameters, calls and checks."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from rsam import geometry
from rsam.errors import NoHigherDerivative, NotFinite
from rsam.evaluation import check_graph, differentiable, explain, isolated
from rsam.evaluation.parameters import check_dtypes, check_precision, named_leaves
from rsam.evaluation.reach import graph_of
from rsam.geometry.sums import all_finite
from rsam.losses.closure import Evaluations, full_precision, reached
from rsam.losses.differences import add
from rsam.losses.with_gradient import with_gradient

__all__ = ["Closure", "Differences", "Method", "Params", "Penalty"]

Closure = Callable[[], Any]
Method = Literal["exact", "difference"]
Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]]
# A value, and covectors with a factor; their product is the gradient of the value.
Differences = tuple[Tensor, list[Tensor], float]

# Whether a penalty is being evaluated.
_evaluating: ContextVar[bool] = ContextVar("_evaluating", default=False)


class Penalty(nn.Module):
    """Base class of all penalties.

    A subclass defines the exact value, and the value and gradient by differences.

    Parameters
    ----------
    params, weight, method, step : as for :class:`~rsam.losses.GradientNorm`
        The parameters, the factor of the penalty, and how it is differentiated.

    Raises
    ------
    ValueError
        For an option out of range, for no parameters, or one that is no leaf.

    Examples
    --------
    All penalties are called with the loss or with a closure, and can be told apart from other modules:

    >>> import torch, rsam
    >>> weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    >>> penalty = rsam.losses.GradientNorm([weight])
    >>> isinstance(penalty, rsam.losses.Penalty), penalty.method
    (True, 'exact')
    >>> loss = (weight**2).sum() / 2
    >>> penalty(loss)  # the gradient is the weight, of norm 5
    tensor(5., grad_fn=<...>)
    """

    #: Order of the loss's derivatives in the gradient of the exact value.
    order: int = 2

    def __init__(self, params: Params, weight: float, method: Method, step: float | None) -> None:
        super().__init__()
        self._named = named_leaves(params)
        self._planned: geometry.Product | None = None
        self._repeats = False  # whether a closure was found to give the same result again
        if method not in ("exact", "difference"):
            raise ValueError(f"method must be 'exact' or 'difference', got {method!r}")
        if step is not None and not 0 < step < math.inf:
            raise ValueError(f"step must be positive and finite, got {step!r}")
        self.weight = weight
        self.method: Method = method
        self.step = step
        self._weighs()

    def extra_repr(self) -> str:
        """Return the factor, for the ``repr`` of this module."""
        return f"weight={self.weight}"

    # -- what a subclass defines ---------------------------------------------------------------------------------

    def _exact(self, subject: Tensor) -> Tensor:
        """Return the value with a graph, from the loss (or the outputs) with its graph."""
        raise NotImplementedError

    def _estimate(self, loss: Tensor, gradient: list[Tensor], evaluate: Evaluations) -> Differences:
        """Return the value and its gradient from the loss, its gradient, and evaluations of both elsewhere."""
        raise NotImplementedError

    if TYPE_CHECKING:  # torch's modules do not declare what calling them returns

        def __call__(self, loss: Tensor | Closure) -> Tensor: ...

    # -- calling -------------------------------------------------------------------------------------------------

    def forward(self, loss: Tensor | Closure) -> Tensor:
        """Return ``weight`` times the penalty, a scalar to add to the training loss.

        Parameters
        ----------
        loss : Tensor or callable
            The training loss with its graph (``method="exact"`` only; build it within
            :func:`rsam.losses.differentiable`), or a closure that returns it, and does not call ``backward``.
            A closure is evaluated without side effects: weights, ``.grad``, buffers and the random states of torch,
            Python and NumPy stay as they were, and all evaluations of one call see the same random numbers. They must
            see the same batch: do not take the next one from a loader within the closure, nor random numbers from a
            generator of your own. With differences, the first call evaluates the closure once more to check this.

        Returns
        -------
        Tensor
            Scalar. With weight 0 it is zero and nothing is evaluated.

        Raises
        ------
        ValueError
            For a loss that is no scalar, has no graph, or depends on none of the parameters. If it depends on some of
            them, the others, such as an expert that the batch does not use, are left out. Within the closure of another
            penalty; in float16, of parameters or of an autocast around the call or within the closure; for reentrant
            checkpoints. By differences, for lazy parameters, and for :class:`HessianTrace` and :class:`Sharpness` for
            ``torch.nn.utils.parametrizations.orthogonal`` by Householder reflections.
        TypeError
            For something else than a loss or a closure.
        RuntimeError
            If the closure gives another result when it is called again, or calls ``backward``.
        NotFinite
            If something is not finite; a RuntimeError.
        NoHigherDerivative
            If a layer cannot be differentiated as often as needed; a RuntimeError.
        UnsupportedOperation
            If a manifold lacks an operation that is needed; names both.
        """
        if not isinstance(loss, Tensor) and not callable(loss):
            raise TypeError(
                f"{type(self).__name__} takes the loss or a closure that returns it, got {type(loss).__name__}"
            )
        if not self._weighs():
            return self._nothing()
        if isinstance(loss, Tensor):
            if self.method == "difference":
                raise ValueError(
                    f"{type(self).__name__} by differences evaluates the loss at other weights: pass a closure that "
                    "returns the loss, not the loss"
                )
            with self._evaluation(), torch.enable_grad():
                return self._derive(loss)
        with self._evaluation(), isolated(), torch.enable_grad():
            if self.method == "exact":
                with differentiable(self.order):
                    subject = loss()
                return self._derive(subject, loss)
            return self._difference(loss)

    def objective(self, closure: Closure) -> Tensor:
        """Return the loss plus ``weight`` times the penalty, sharing the evaluation of the loss.

        Buffers and the random states advance as by one call of the closure; there are no other side effects.

        Parameters
        ----------
        closure : callable
            Returns the loss, without calling ``backward``.

        Returns
        -------
        Tensor
            Scalar whose ``backward`` reaches all that the loss depends on, not only the penalty's parameters.

        Raises
        ------
        TypeError
            For a loss in the place of the closure.
        ValueError, RuntimeError, UnsupportedOperation
            As for :meth:`forward`.

        Notes
        -----
        With ``method="difference"`` this method computes the gradients, one per evaluation, and ``backward`` only adds
        them up. A hook on a parameter (``register_hook``) runs for each of these gradients, and once more in
        ``backward``. Use a post-accumulate-grad hook, which runs once, in ``backward``, for hooks that change the
        gradient, such as clipping.
        """
        if not callable(closure):
            raise TypeError(
                f"{type(self).__name__}.objective takes a closure that returns the loss, got {type(closure).__name__}"
            )
        if not self._weighs():
            with torch.enable_grad():
                return self._loss_of(closure())
        with self._evaluation(), torch.enable_grad():
            if self.method == "difference":
                return self._objective_by_difference(closure)
            with differentiable(self.order):
                outcome = closure()
            loss = self._loss_of(outcome)
            return loss + self._derive(self._subject_of(outcome), closure, loss).to(loss.device)

    @contextmanager
    def _evaluation(self) -> Iterator[None]:
        """Refuse to be evaluated in float16, and within the closure of a penalty.

        A difference of penalties would be one of their random probes, and an exact derivative of one would be of higher
        order than the layers were replaced for.
        """
        if _evaluating.get():
            raise ValueError(
                f"{type(self).__name__} is in the closure of another penalty, which would penalise it too; add it "
                "outside: first.objective(closure) + second(closure)"
            )
        check_precision(self._live(), lambda i: self._space().describe(i))
        token = _evaluating.set(True)
        try:
            yield
        finally:
            _evaluating.reset(token)

    def _loss_of(self, outcome: Any) -> Tensor:
        """Return the loss from the result of the closure of :meth:`objective`."""
        loss: Tensor = outcome  # checked later
        return loss

    def _subject_of(self, outcome: Any) -> Any:
        """Return the penalised quantity from the result of the closure of :meth:`objective`."""
        return outcome

    def _derive(self, subject: Any, closure: Closure | None = None, loss: Tensor | None = None) -> Tensor:
        """Return the weighted exact value; check also the loss that it is added to."""
        params = self._live()
        self._check(subject)
        check_dtypes(graph_of(subject).dtypes)

        def again() -> None:
            with differentiable(self.order):
                closure()  # type: ignore[misc]

        try:
            with full_precision(params):
                value = self._exact(subject)
            check_graph(value, self.order)
        except geometry.UnsupportedOperation:
            raise
        except RuntimeError as error:
            better = explain(error, None if closure is None else again, order=self.order)
            if not isinstance(better, NoHigherDerivative):
                raise
            raise NoHigherDerivative(f"{better}; method='difference' needs gradients only") from error
        if not all_finite([subject, value] if loss is None else [subject, value, loss]):
            raise NotFinite(f"{type(self).__name__} is {value.item()}: the loss or a derivative of it is not finite")
        return self.weight * (value if value.requires_grad else value + self._nothing())

    def _difference(self, closure: Closure) -> Tensor:
        """Return the weighted value with its gradient by differences; called within :func:`isolated`."""
        evaluate = self._evaluations(closure)
        _, _, value, covectors, factor = self._differences(evaluate)
        scaled = torch._foreach_mul(covectors, self.weight * factor)
        return with_gradient((self.weight * value).reshape(()), scaled, [*evaluate.params, *evaluate.others])

    def _objective_by_difference(self, closure: Closure) -> Tensor:
        evaluate = self._evaluations(closure)
        loss, gradient, value, covectors, factor = self._differences(evaluate)
        sums = add(gradient, covectors, self.weight * factor)
        return with_gradient(loss + self.weight * value.to(loss.device), sums, [*evaluate.params, *evaluate.others])

    def _evaluations(self, closure: Closure, subject_of: Callable[[Any], Any] = lambda outcome: outcome) -> Evaluations:
        for name, p in self._named:
            if is_lazy(p):
                raise ValueError(f"parameter {name} has no shape yet: call the model once before its penalty")
        space = self._space()
        for i, manifold in enumerate(space.manifolds):
            learnable = next((name for name, c in manifold.named_parameters() if c.requires_grad), None)
            if learnable is not None:  # metric and curves depend on it, which gradients of the loss do not show
                raise ValueError(
                    f"{type(self).__name__} by differences would have a wrong gradient in the learnable {learnable!r} "
                    f"of the manifold of {space.describe(i)}; freeze it, or take a penalty with method='exact'"
                )
        return Evaluations(closure, subject_of, self._autograd, space)

    def _differences(self, evaluate: Evaluations) -> tuple[Tensor, list[Tensor], Tensor, list[Tensor], float]:
        """Return the loss, its gradient, and the :data:`Differences`."""
        loss = evaluate.here()
        self._check(loss)
        gradient = evaluate.gradient_here(loss)
        loss = loss.detach()  # so that nothing keeps the graph
        self._check_repeats(loss, evaluate)
        value, covectors, factor = self._estimate(loss, gradient, evaluate)
        if not all_finite([loss, value, *covectors]):  # a single check: it notices gradients that are not finite too
            what = "its change at moved weights" if all_finite([loss, *gradient]) else "its gradient"
            raise NotFinite(f"{type(self).__name__}: the loss ({loss.item()}) or {what} is not finite")
        return loss, gradient, value, covectors, factor

    def _check_repeats(self, subject: Tensor, evaluate: Evaluations) -> None:
        if not self._repeats:
            evaluate.check_repeats(subject, type(self).__name__)
            self._repeats = True

    # -- parameters ----------------------------------------------------------------------------------------------

    def _live(self) -> list[Tensor]:
        """Return the parameters that are not frozen."""
        live = [p for _, p in self._named if p.requires_grad]
        if not live:
            raise ValueError(f"{type(self).__name__}: all of the parameters are frozen (requires_grad is False)")
        return live

    def _space(self) -> geometry.Product:
        """Return the product manifold of the live parameters."""
        live = self._live()
        if self._planned is None or list(map(id, self._planned.params)) != list(map(id, live)):
            names = [f"parameter {name}" for name, p in self._named if p.requires_grad]
            self._planned = geometry.Product(live, names=names)
        self._planned.update()
        return self._planned

    def _gradient(self, outcome: Tensor, cotangent: Tensor | None = None) -> tuple[geometry.Product, list[Tensor]]:
        """Return the live parameters that an outcome depends on, and the gradient in them, with a graph."""
        space = self._space()
        return reached(space, self._autograd(outcome, space.params, cotangent, create_graph=True))

    def _autograd(
        self,
        outcome: Tensor | list[Tensor],
        tensors: list[Tensor],
        cotangent: Tensor | list[Tensor] | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
    ) -> list[Tensor | None]:
        try:
            with full_precision(tensors):
                partials = torch.autograd.grad(
                    outcome, tensors, cotangent, retain_graph, create_graph, allow_unused=True
                )
        except RuntimeError as error:
            if "second time" in str(error):
                raise RuntimeError("the graph of the loss is gone: a closure must not call backward itself") from error
            if "use_reentrant=True" in str(error):
                raise ValueError(
                    "torch.utils.checkpoint with use_reentrant=True has no derivatives for penalties; pass it "
                    "use_reentrant=False"
                ) from error
            if "donated buffers" in str(error):
                raise RuntimeError(
                    f"{type(self).__name__} differentiates more than once what torch.compile made to be differentiated "
                    "once; set torch._functorch.config.donated_buffer = False before the first call, or do not compile"
                ) from error
            raise
        for g, t in zip(partials, tensors, strict=True):
            if g is not None and g.layout != torch.strided:
                index = next((i for i, p in enumerate(self._live()) if p is t), None)
                outside = f"a tensor of shape {tuple(t.shape)} outside of params"
                what = outside if index is None else self._space().describe(index)
                raise ValueError(f"{what} gets sparse gradients, which are not supported; use sparse=False")
        return list(partials)

    # -- checks --------------------------------------------------------------------------------------------------

    def _weighs(self) -> bool:
        learned = isinstance(self.weight, Tensor) and self.weight.requires_grad  # by differences it gets no gradient
        if learned or not isinstance(self.weight, numbers.Real | Tensor):
            got = type(self.weight).__name__
            raise ValueError(f"weight must be a number, got {got}; multiply the penalty by a weight that is learned")
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"weight must be finite and not negative, got {self.weight!r}")
        return self.weight != 0

    def _nothing(self) -> Tensor:
        return torch.zeros((), device=self._named[0][1].device, requires_grad=True)

    def _check(self, loss: Any) -> None:
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"{type(self).__name__} needs a scalar loss, got {got}")
        self._check_graph_of(loss)

    def _check_graph_of(self, tensor: Tensor) -> None:
        if not tensor.requires_grad and torch.is_inference_mode_enabled():
            raise ValueError(
                f"{type(self).__name__} got a tensor without a graph: torch.inference_mode() builds none; evaluate the "
                "penalty outside of it"
            )
        if not tensor.requires_grad:
            raise ValueError(
                f"{type(self).__name__} got a tensor without a graph: compute it from the parameters with gradients "
                "enabled, and do not detach it or take its item()"
            )
