"""Affiliate marks in request targets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.enrich.marks_kernels import NO_MARK, find_marks
from pipeline.model.columns import TextColumn
from tests.naive import hosts as naive

MARKS = ["awc", "ranMID", "irclickid", "clickref"]


def marks_in(targets: list[str], wanted: list[bool] | None = None) -> list[int]:
    column, marks = TextColumn.of(targets), TextColumn.of(MARKS)
    out = np.zeros(len(targets), np.int32)
    take = np.array([True] * len(targets) if wanted is None else wanted, np.uint8)
    find_marks(take, column.data, column.offsets, marks.data, marks.offsets, out)
    return out.tolist()


@given(
    st.lists(
        st.tuples(
            st.text(alphabet="aw=&;?#cAWC/%", max_size=20)
            | st.lists(st.sampled_from([*MARKS, "x", "?", "&", "=", "#", ";", "RANmid"])).map(
                "".join
            ),
            st.booleans(),
        ),
        max_size=12,
    )
)
def test_kernel_equals_naive(rows):
    targets, wanted = [t for t, _ in rows], [w for _, w in rows]
    assert marks_in(targets, wanted) == naive.find_marks(wanted, targets, MARKS)


@pytest.mark.parametrize(
    ("target", "mark"),
    [
        ("/p?awc=123", "awc"),
        ("/p?a=1&awc=123&clickref=9", "awc"),
        ("/p?RANMID=1", "ranMID"),
        ("/p?x=1;irclickid=2", "irclickid"),
        ("/p?awc", "awc"),
        ("http://acme.example/p?x=&awc=1", "awc"),
        ("/p?next=/q?awc=1", ""),
        ("/p?xawc=1", ""),
        ("/p?awcx=1", ""),
        ("/awc=1", ""),
        ("/p#?awc=1", ""),
        ("/p?x=1#&awc=1", ""),
        ("/p?", ""),
        ("", ""),
    ],
)
def test_where_a_mark_stands(target, mark):
    assert marks_in([target]) == [MARKS.index(mark) if mark else NO_MARK]
