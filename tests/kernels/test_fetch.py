"""To ask for memory changes nothing, wherever it is, and is one instruction."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from pipeline.kernels.compile import INTERPRETED, LINE_BYTES, fetch, kernel, records

PAIR = np.dtype([("left", "u8"), ("right", "u8", (7,))])


@kernel
def ask(table, places):
    for i in range(len(places)):
        fetch(table, places[i])
    return len(places)


@pytest.mark.parametrize("dtype", [np.dtype(np.uint8), np.dtype(np.int64), PAIR])
@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.uint32])
def test_asking_changes_nothing_wherever_the_place_is(dtype, kind):
    table = records(dtype, 8)
    places = np.array([0, 7, 8, 1 << 31, np.iinfo(kind).max, 0], kind)
    places[-1] = np.iinfo(kind).min
    before = table.tobytes()
    assert ask(table, places) == len(places)
    assert table.tobytes() == before


@pytest.mark.skipif(INTERPRETED, reason="nothing is compiled")
def test_it_is_the_processors_own_instruction():
    fresh = numba.njit(ask.py_func)  # of what came from the cache nothing can be seen
    assert fresh(np.zeros(4, PAIR), np.zeros(1, np.int64)) == 1
    assert any("prefetch" in text for text in fresh.inspect_asm().values())


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_records_begin_where_a_line_does(count):
    made = records(PAIR, count)
    assert made.shape == (count,)
    assert made.ctypes.data % LINE_BYTES == 0
    assert not made.view(np.uint8).any()
    assert records(PAIR, 2, 3).shape == (2, 3)
