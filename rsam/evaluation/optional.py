"""Import packages of the extra ``curvature`` only where they are used."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["optional", "progress"]


def optional(module: str, purpose: str) -> Any:
    """Import a module of the extra ``curvature``.

    Parameters
    ----------
    module : str
        Full name of the module.
    purpose : str
        Feature that needs it, for the message.

    Raises
    ------
    ImportError
        If its package is not installed; says which extra to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise ImportError(f"{purpose} needs {package}: pip install 'rsam[curvature]'") from error


def progress(iterable: Iterable[Any] | None = None, *, show: bool, **options: Any) -> Any:
    """Return a progress bar, or an object with its interface that shows nothing.

    Parameters
    ----------
    iterable : iterable, optional
        Items that the bar counts; without them, :meth:`update` advances the bar.
    show : bool
        Whether to show it, which needs tqdm.
    **options
        Passed on to tqdm.
    """
    if show:
        return optional("tqdm", "a progress bar").tqdm(iterable, **options)
    return _Hidden(() if iterable is None else iterable)


class _Hidden:
    """Replacement of tqdm's bar that shows nothing."""

    def __init__(self, iterable: Iterable[Any]) -> None:
        self._iterable = iterable

    def __iter__(self) -> Iterator[Any]:
        return iter(self._iterable)

    def __enter__(self) -> _Hidden:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(self, count: int = 1) -> None:
        """Do nothing."""
