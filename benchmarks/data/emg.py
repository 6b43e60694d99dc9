"""Load covariance matrices of muscle signals: five hand signs, two people, two sessions each."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.data.arrays import read_arrays
from benchmarks.data.dataset import DatasetError

__all__ = ["FIRST", "SESSIONS", "SIGNS", "load_emg"]

PATH = Path(__file__).parent / "emg.npz"
SIGNS = ("rest", "rock", "paper", "scissors", "ok")
#: Two people, each recorded in two sessions.
SESSIONS = ("mg_s1", "rr_s1", "mg_s2", "rr_s2")
#: Number of first sessions.
FIRST = 2


@lru_cache(maxsize=1)
def load_emg() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Load the matrices and their labels.

    Returns
    -------
    covariances : Tensor
        Shape ``(n, 8, 8)``, positive definite, double precision, divided by the mean variance of a channel in the
        first sessions, so that training on these uses nothing of the second sessions.
    signs, sessions, segments : Tensor
        Shape ``(n,)``: indices into :data:`SIGNS` and :data:`SESSIONS`, and numbers of the stretches of one sign from
        which the windows were cut; windows of one stretch are alike.

    Raises
    ------
    DatasetError
        If the file is missing or damaged; names it.
    """
    cure = f"restore it with `git checkout -- {PATH}`"
    arrays = list(read_arrays(PATH, ("covariances", "signs", "sessions", "segments"), cure).values())
    if [a.shape for a in arrays] != [(len(arrays[0]), 36), *[(len(arrays[0]),)] * 3]:
        raise DatasetError(f"{PATH} is damaged (arrays of shapes {[a.shape for a in arrays]}); {cure}")
    triangle = torch.from_numpy(arrays[0]).double()
    rows, columns = np.tril_indices(8)
    full = torch.zeros(len(triangle), 8, 8, dtype=torch.float64)
    full[:, rows, columns] = triangle
    full[:, columns, rows] = triangle
    signs, sessions, segments = (torch.from_numpy(a).long() for a in arrays[1:])
    unit = full[sessions < FIRST].diagonal(dim1=1, dim2=2).mean()
    return full / unit, signs, sessions, segments
