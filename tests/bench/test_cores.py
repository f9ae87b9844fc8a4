"""What a second core is worth."""

from __future__ import annotations

import os

import pytest

from tests.bench import cores


def test_a_core_is_worth_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    took = {(0,): [2.0], (1,): [4.0], (0, 1): [3.0, 4.0]}
    monkeypatch.setattr(cores, "_seconds", lambda which, _: took[tuple(which)])
    assert cores.worth([0]) == 1
    assert cores.worth([0, 1]) == 1.5


def test_two_loops_are_done_no_sooner_than_half_of_one() -> None:
    ours = sorted(os.sched_getaffinity(0))[:2]
    assert 0.3 <= cores.worth(ours, 300_000) <= len(ours) * 2
