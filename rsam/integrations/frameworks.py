"""Import frameworks, each of which has an extra of its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["needs"]


@contextmanager
def needs(framework: str) -> Iterator[None]:
    """Name the extra that brings a framework, if it cannot be imported within this context.

    Parameters
    ----------
    framework : str
        Name of its top module.

    Raises
    ------
    ImportError
        If it is not installed.

    Examples
    --------
    >>> with needs("no_such_framework"):
    ...     import no_such_framework.pytorch
    Traceback (most recent call last):
      ...
    ImportError: rsam.integrations.no_such_framework needs no_such_framework: pip install 'rsam[no-such-framework]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != framework:  # the framework is there, and lacks something
            raise
        extra = framework.replace("_", "-")
        raise ImportError(f"rsam.integrations.{framework} needs {framework}: pip install 'rsam[{extra}]'") from error
