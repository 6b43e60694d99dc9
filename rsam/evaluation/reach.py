"""Record which parameters a pass over the data depends on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

__all__ = ["Reach"]


class Reach:
    """Record of the parameters that any batch depends on; a single batch may miss an expert or a head.

    Parameters
    ----------
    count : int
        Number of parameters.
    """

    def __init__(self, count: int) -> None:
        self._missed = set(range(count))
        self._looked = False
        self._without_graph = ""  # says what came without a graph, as long as no batch had one

    def note(self, gradients: Sequence[Tensor | None]) -> None:
        """Add the parameters that a batch depends on: those whose gradient is not None."""
        self._missed -= {i for i, g in enumerate(gradients) if g is not None}
        self._looked, self._without_graph = True, ""

    def note_without_graph(self, what: str) -> None:
        """Add a batch whose loss or outputs have no graph; ``what`` says which."""
        if not self._looked:
            self._looked, self._without_graph = True, what

    def check(self, describe: Callable[[int], str]) -> None:
        """Raise ValueError if no batch depends on a parameter; ``describe`` names it."""
        if not self._looked or not self._missed:
            return
        if self._without_graph:
            raise ValueError(
                f"{self._without_graph} without a graph; compute it from the parameters, outside no_grad and detach"
            )
        raise ValueError(f"params: the loss does not depend on {describe(min(self._missed))}; leave it out")
