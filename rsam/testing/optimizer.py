"""Check an optimizer in one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import geoopt
import torch
from hypothesis import strategies as st
from torch import Tensor

from rsam.geometry import CanonicalStiefel
from rsam.testing import steps
from rsam.testing.arguments import checked_functions, checked_shape, in_precision
from rsam.testing.isometries import Isometry, isometries
from rsam.testing.points import ambient_dtype, remarks_on_points
from rsam.testing.running import Check, Report, run_checks
from rsam.testing.strategies import Shape, arrays, points

__all__ = ["check_optimizer"]

_PROPERTIES = (
    steps.a_step_returns_the_loss_before_it,
    steps.steps_stay_on_the_manifold,
    steps.a_short_step_goes_downhill,
    steps.a_smaller_rate_makes_a_shorter_step,
    steps.each_group_steps_by_its_own_rate,
    steps.a_step_without_gradient_goes_nowhere,
    steps.a_loaded_state_continues_the_run,
    steps.restoring_is_exact,
    steps.an_exception_leaves_the_weights,
    steps.the_ascent_goes_the_radius_along_the_gradient,
    steps.a_step_without_radius_is_the_base_step,
    steps.steps_are_blind_to_isometries,
)

_DEFAULT: tuple[tuple[Callable[[], geoopt.Manifold], Shape], ...] = (
    (lambda: geoopt.Euclidean(1), (3,)),
    (geoopt.Sphere, (3,)),
    (CanonicalStiefel, (3, 2)),
    (geoopt.PoincareBall, (2,)),
    (geoopt.Lorentz, (3,)),
    (geoopt.SymmetricPositiveDefinite, (2, 2)),
)


def check_optimizer(
    factory: Callable[[list[Tensor]], Any],
    *,
    manifold: geoopt.Manifold | None = None,
    shape: Shape | None = None,
    dtype: torch.dtype = torch.float64,
    max_examples: int = 15,
    isometry: st.SearchStrategy[Isometry] | None = None,
    skip: Sequence[Callable[..., None]] = (),
) -> Report:
    """Check the steps of an optimizer, on a parameter on a manifold and a plain one.

    Any optimizer must stay on the manifold, go downhill by a small learning rate, and less far by a smaller one, of
    its own for each parameter group, stay where it is without a gradient, return the loss, leave the weights
    unchanged if the closure raises, go on as before with a loaded state, and be equivariant to isometries. An
    optimizer with ``first_step``, ``second_step``, ``restore`` and ``base_optimizer``, as :class:`rsam.RSAM`,
    must also ascend by ``rho`` in the metric along the gradient, become its base for ``rho -> 0``, and restore
    weights exactly.

    Parameters
    ----------
    factory : callable
        Makes an optimizer of a list of parameters, with a learning rate of at most 1.
    manifold : geoopt.Manifold, optional
        Manifold of the parameter; by default one manifold of each kind is tried, plain space included.
    shape : tuple of int, optional
        Shape of the parameter; needed with ``manifold``.
    dtype : torch.dtype
        Precision; a manifold with a curvature of another precision is converted to a copy in this one.
    max_examples : int
        Number of cases to try on each manifold.
    isometry : hypothesis strategy of Isometry, optional
        Isometries to try instead of :func:`rsam.testing.isometries`.
    skip : sequence of callable
        Properties of :mod:`rsam.testing.steps` to leave out.

    Returns
    -------
    Report
        The properties that hold, and those that do not apply to this optimizer or manifold.

    Raises
    ------
    AssertionError
        If any property does not hold; shows the simplest case found for each.
    TypeError
        If an argument has another type.
    ValueError
        If only one of manifold and shape is given, points of the manifold cannot have this shape, or another argument
        is out of range.

    Examples
    --------
    >>> import geoopt, rsam.testing
    >>> report = rsam.testing.check_optimizer(
    ...     lambda params: rsam.RSAM(params, rho=0.1, lr=0.1), manifold=geoopt.Sphere(), shape=(3,), max_examples=3
    ... )
    >>> report.skipped
    ()
    """
    left_out = checked_functions("skip", skip, "rsam.testing.steps")
    if isinstance(factory, torch.optim.Optimizer) or not callable(factory):
        raise TypeError(
            "factory must be a function that makes an optimizer of a list of parameters, such as "
            f"lambda params: rsam.RSAM(params, lr=0.1), got an object of {type(factory).__name__}"
        )
    if manifold is None:
        if shape is not None or isometry is not None:
            raise ValueError("check_optimizer takes shape and isometry with a manifold only")
        reports = [
            check_optimizer(
                factory, manifold=make(), shape=default_shape, dtype=dtype, max_examples=max_examples, skip=skip
            )
            for make, default_shape in _DEFAULT
        ]
        skipped = {name for report in reports for name in report.skipped}
        return Report(tuple(n for n in reports[0].checked if n not in skipped), tuple(sorted(skipped)))
    if shape is None:
        raise ValueError("check_optimizer needs the shape of the parameter with manifold")
    shape = checked_shape(manifold, shape, dtype, max_examples)
    manifold = in_precision(manifold, dtype)
    trial = steps.Trial(factory, manifold)
    checks = [Check(function, trial) for function in _PROPERTIES if function not in left_out]
    ambient = arrays(shape, ambient_dtype(manifold, dtype))
    drawn: dict[str, Any] = {"x": points(manifold, shape, dtype), "a": ambient, "b": ambient}
    try:
        drawn["isometry"] = isometries(manifold, shape, dtype) if isometry is None else isometry
    except NotImplementedError:
        drawn["isometry"] = st.none()  # the property does not apply without an isometry
    outcome = run_checks(
        checks, lambda names: st.fixed_dictionaries({name: drawn[name] for name in names}), max_examples
    )
    outcome.raise_failures(f"{manifold.name}, shape {shape}", remarks_on_points(manifold))
    return outcome.report
