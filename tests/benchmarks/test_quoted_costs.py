"""That the figures of costs in a README become those of the rows."""

from __future__ import annotations

import pytest

from benchmarks.studies.overhead.quoted import QUOTES, with_figures
from tests.benchmarks.made_costs import made_rows, shown


def test_that_figures_of_the_readme_become_those_of_the_rows() -> None:
    before = "\n".join(quote.words.replace("{}", "9.9 (9.8–10)").replace(" ", "\n  ", 1) for quote in QUOTES)
    after = with_figures(before, made_rows())
    for quote, ratio in zip(QUOTES, [2.0, 2.0, 2.0, 1.25, 3.0, 1.5, 1.2], strict=True):
        assert quote.words.replace("{}", shown(ratio, quote.decimals)) in " ".join(after.split())
    assert with_figures(after, made_rows()) == after
    with pytest.raises(ValueError, match="says '200 small spheres"):
        with_figures("nothing", made_rows())
