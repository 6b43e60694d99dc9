"""That plots show the given numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rsam.margins import plot_gaps, plot_margins
from tests.margins.problems import normal


def test_that_each_layer_has_a_panel_with_medians_over_checkpoints() -> None:
    checkpoints = {e: {"input": normal(50, seed=e), "blocks.1": normal(50, seed=e + 9)} for e in (10, 0, 5)}
    figure = plot_margins(checkpoints)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [panel.get_title() for panel in panels] == ["input", "layer blocks.1"]
    line = panels[1].lines[0]
    assert line.get_xdata().tolist() == [0, 5, 10]
    values = [checkpoints[e]["blocks.1"] for e in (0, 5, 10)]
    np.testing.assert_allclose(line.get_ydata(), [np.median(v) for v in values])
    bands = {band.get_label(): band.get_paths()[0].vertices for band in panels[1].collections}
    for label, ends in (("90 % of examples", (0.05, 0.95)), ("50 % of examples", (0.25, 0.75))):
        for epoch, v in zip((0, 5, 10), values, strict=True):
            heights = bands[label][bands[label][:, 0] == epoch, 1]
            np.testing.assert_allclose((heights.min(), heights.max()), np.quantile(v, ends))
    (first, second) = plot_margins(checkpoints, columns=1, xlabel="step").axes
    assert first.get_position().y0 > second.get_position().y1 and second.get_xlabel() == "step"


def test_that_predictions_stand_against_gaps_by_group() -> None:
    gaps, predicted = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.12, 0.2, 0.28, 0.44])
    (axes,) = plot_gaps(predicted, gaps, groups=["a", "b", "a", "b"], title="held out").axes
    points = np.concatenate([np.asarray(c.get_offsets()) for c in axes.collections])
    assert sorted(map(tuple, points)) == sorted(zip(gaps, predicted, strict=True))
    assert axes.get_title() == "held out: $R^2$ = 0.95, 4 networks"  # 1 - 0.0024 / 0.05
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["a", "b"]


def test_that_pictures_of_unlike_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="map each epoch to a result of margins"):
        plot_margins({"input": torch.ones(3), "output": torch.ones(3)})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="two at least"):
        plot_margins({0: {"input": torch.ones(3)}})
    with pytest.raises(ValueError, match=r"checkpoint 1 has layers \['0'\]"):
        plot_margins({0: {"input": torch.ones(3)}, 1: {"0": torch.ones(3)}})
    with pytest.raises(ValueError, match="as many numbers"):
        plot_gaps([0.1], [0.1, 0.2])
    with pytest.raises(ValueError, match="colours cannot be told apart"):
        plot_gaps(range(11), range(11), groups=range(11))
