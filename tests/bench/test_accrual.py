"""The bench of accrual runs, on few rows, and what it makes is worth something."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench import accrual


@pytest.mark.parametrize("name", [accrual.PLAIN, accrual.STACKED, accrual.LIMITED])
def test_every_figure_is_measured(name):
    measured = accrual.measure(name, 3000)
    assert measured.rate > 0
    assert measured.naive_rate > 0
    assert measured.points > 3000
    assert measured.most_bytes >= measured.first_bytes > 0
    assert name in accrual.show({name: measured})


def test_blocks_are_in_order_and_the_same_each_time(monkeypatch):
    monkeypatch.setattr(accrual, "BLOCK_ROWS", 100)
    one, other = (list(accrual.made(250, items=True)) for _ in range(2))
    assert [len(batch) for batch in one] == [100, 100, 50]
    events = np.concatenate([batch.event_ns for batch in one])
    assert (np.diff(events) >= 0).all()
    for mine, theirs in zip(one, other, strict=True):
        assert mine.items.to_list() == theirs.items.to_list()
        assert mine.conversion_key.tolist() == theirs.conversion_key.tolist()
