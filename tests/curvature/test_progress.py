"""That progress is shown if asked for, and only then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from rsam.curvature import (
    RiemannianHessian,
    fisher_trace,
    gradient_norm,
    landscape,
    layer_traces,
    sharpness,
    spectral_density,
    top_eigenvalues,
    trace,
)
from tests.curvature.problems import DOUBLE, batches, examples, network

MSE = nn.MSELoss()


def hessian(model: nn.Module, data: Any, **options: Any) -> RiemannianHessian:
    return RiemannianHessian(model, MSE, model.parameters(), data, **options)


#: Measures by the label of their bar.
MEASURES: dict[str, Callable[..., Any]] = {
    "risk": lambda m, d, **bar: hessian(m, d, **bar) @ torch.ones(43, dtype=DOUBLE),
    "risk: ": lambda m, d, **bar: gradient_norm(m, MSE, m.parameters(), d, **bar),
    "trace": lambda m, d, **bar: [
        trace(hessian(m, d), 4, method=method, **bar)  # type: ignore[arg-type]
        for method in ("hutchinson", "xtrace", "exact")
    ],
    "trace: ": lambda m, d, **bar: layer_traces(hessian(m, d), 2, **bar),
    "eigenvalues": lambda m, d, **bar: top_eigenvalues(hessian(m, d), rtol=0.1, **bar),
    "spectral density": lambda m, d, **bar: spectral_density(hessian(m, d), 3, repeats=1, **bar),
    "fisher trace": lambda m, d, **bar: fisher_trace(m, MSE, m.parameters(), d, 2, **bar),
    "sharpness": lambda m, d, **bar: sharpness(m, MSE, m.parameters(), d, micro_batch=4, **bar),
    "sharpness: ": lambda m, d, **bar: sharpness(m, MSE, m.parameters(), d, kind="average", probes=2, **bar),
    "landscape": lambda m, d, **bar: landscape.line(m, MSE, m.parameters(), d, steps=3, **bar),
    "landscape: ": lambda m, d, **bar: landscape.plane(m, MSE, m.parameters(), d, steps=2, **bar),
}


@pytest.mark.parametrize("name", MEASURES)
def test_that_a_bar_appears_when_it_is_asked_for(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = batches(examples(), 7, 5)
    silent = MEASURES[name](network(), data)
    assert capsys.readouterr() == ("", "")
    loud = MEASURES[name](network(), data, progressbar=True)
    out, err = capsys.readouterr()
    assert name in err and out == ""
    assert str(loud) == str(silent)
