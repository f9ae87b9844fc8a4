"""Counts add up, in whatever order and however they come."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.faults import Fault, Skip
from pipeline.model.tally import Tally
from pipeline.model.words import Protocol

STAGES = st.sampled_from(["capture", "classify", "enrich"])
counted = st.lists(
    st.tuples(STAGES, st.sampled_from(["in", "out", "fault:udp"]), st.integers(0, 9))
)


@given(counted)
def test_counts_add_up(entries):
    tally = Tally()
    for stage, what, count in entries:
        tally.add(stage, what, count)
    for word in ("in", "out", "fault:udp", "nothing"):
        assert tally.of(word) == sum(n for _, what, n in entries if what == word)


def test_words_carry_what_they_are():
    tally = Tally()
    tally.add_counts("classify", Skip, np.array([9, 1, 0, 2]))
    tally.add_counts("classify", Fault, np.array([9, 0, 3]))
    tally.add_counts("classify", Protocol, np.array([0, 5]))
    assert tally.as_dict() == {
        "classify": {":http": 5, "fault:file_truncated": 3, "skip:not_ip": 1, "skip:udp": 2}
    }
    assert tally.starting("skip") == {"not_ip": 1, "udp": 2}


def test_nothing_leaves_no_trace():
    tally = Tally()
    tally.add("capture", "in", 0)
    tally.add_counts("capture", Fault, np.zeros(40, np.int64))
    assert tally.as_dict() == {}
