"""The bench of kernels leaves none out, and what the docstrings quote has its form."""

from __future__ import annotations

import re

import pytest

from tests.bench import kernels
from tests.tidy.test_kernels import TWINS

ALL = {where.rpartition(":")[2] for where in TWINS}


def test_every_kernel_that_is_called_is_measured() -> None:
    assert sorted(one.name for one in kernels.KERNELS) == sorted(ALL)


@pytest.mark.slow
def test_each_has_rows_bytes_and_a_share() -> None:
    most, costs = kernels.measure(packets=40_000, runs=1)
    assert {cost.name for cost in costs} == ALL
    for cost in costs:
        assert cost.rows > 0
        assert cost.bytes >= 16
        assert 0 < cost.share < 3, f"{cost}: more than a cache gives"
        assert cost.share == pytest.approx(cost.bytes / (cost.nanoseconds * 1e-9) / most)
        assert re.fullmatch(r"\w+ +[\d,]+ rows +\d+ bytes +[\d.]+ ns a row +[\d.]+%", str(cost))
