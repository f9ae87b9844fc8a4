"""Who held which address, and on what basis: the tables against lists of facts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels.circle import Circle, CircleArrays, bases, holder_at
from pipeline.kernels.compile import kernel
from pipeline.model.batches import BasisBatch, BindingBatch
from pipeline.model.columns import TextColumn, no_ids
from pipeline.model.words import BindingKind
from tests.naive.circle import NaiveCircle

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")
KEY = np.array([3, 5], np.uint64)
TIMES = st.integers(0, 8)
V6 = 0x2001_0DB8 << 32

# Prefixes that lie in each other, and addresses in and beside them.
PREFIXES = st.sampled_from([
    (0, 0xFFFF_C000_0201, 128), (0, 0xFFFF_C000_0202, 128), (0, 0xFFFF_C000_0200, 120), (0, 0xFFFF_C000_0280, 121),
    (V6, 0, 64), (V6, 1, 128), (V6 + 1, 0, 64), (V6, 0, 48), (V6, 5 << 32, 96), (V6, 0, 40),
    (0, 0xFFFF_C000_0000, 112), (V6 + (1 << 16), 0, 64),
])  # fmt: skip
ADDRESSES = st.sampled_from([
    (0, 0xFFFF_C000_0201), (0, 0xFFFF_C000_0202), (0, 0xFFFF_C000_02FF), (0, 0xFFFF_C000_0301), (V6, 1), (V6, 2),
    (V6, (5 << 32) + 9), (V6 + 1, 7), (V6 + 2, 7), (V6 + (1 << 20), 0), (0, 1),
    (V6 + (1 << 16), 3), (V6 + (1 << 32), 0), (0, 0xFFFF_C001_0201),
])  # fmt: skip
BINDINGS = st.lists(st.tuples(PREFIXES, st.integers(-1, 3), TIMES, TIMES), max_size=30)
BASIS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), TIMES, TIMES), max_size=20)


@kernel
def holders(
    key, lengths4, lengths6, near, prefixes, facts, standings, basis_facts,
    hi, lo, t, known, out,
):  # fmt: skip
    circle = CircleArrays(key, lengths4, lengths6, near, prefixes, facts, standings, basis_facts)
    for i in range(len(hi)):
        out[i] = holder_at(circle, hi[i], lo[i], t[i], known[i])


def binding_batch(rows: list[tuple[tuple[int, int, int], int, int, int]]) -> BindingBatch:
    """Bindings; a subscriber of -1 is an end."""
    size = len(rows)
    return BindingBatch(
        binding_id=no_ids(size),
        kind=np.array([BindingKind.BIND if r[1] >= 0 else BindingKind.END for r in rows], np.uint8),
        subscriber=np.array([r[1] for r in rows], np.int32),
        subscriber_id=no_ids(size),
        address_hi=np.array([r[0][0] for r in rows], np.uint64),
        address_lo=np.array([r[0][1] for r in rows], np.uint64),
        prefix_length=np.array([r[0][2] for r in rows], np.uint8),
        address_hash=no_ids(size),
        login=TextColumn.repeat("", size),
        event_ns=np.array([r[2] for r in rows], np.int64),
        received_ns=np.array([r[3] for r in rows], np.int64),
    )


def basis_batch(rows: list[tuple[int, int, int, int]]) -> BasisBatch:
    """Standings of subscribers."""
    size = len(rows)
    return BasisBatch(
        basis_id=no_ids(size),
        subscriber=np.array([r[0] for r in rows], np.int32),
        subscriber_id=no_ids(size),
        state=np.array([r[1] for r in rows], np.uint8),
        terms=TextColumn.repeat("", size),
        login=TextColumn.repeat("", size),
        event_ns=np.array([r[2] for r in rows], np.int64),
        received_ns=np.array([r[3] for r in rows], np.int64),
    )


def ask(circle: Circle, questions: list[tuple[tuple[int, int], int, int]]) -> list[int]:
    """Who held these addresses at these times, as known then."""
    out = np.zeros(len(questions), np.int32)
    holders(
        *circle.arrays,
        np.array([q[0][0] for q in questions], np.uint64),
        np.array([q[0][1] for q in questions], np.uint64),
        np.array([q[1] for q in questions], np.int64),
        np.array([q[2] for q in questions], np.int64),
        out,
    )
    return out.tolist()


@given(
    BINDINGS,
    st.lists(st.tuples(ADDRESSES, TIMES, TIMES), min_size=1, max_size=20),
    st.integers(0, 30),
)
def test_holders_equal_the_twin(rows, questions, cut):
    circle, twin = Circle(KEY, capacity=4), NaiveCircle()
    for part in (rows[:cut], rows[cut:]):
        circle.bind(binding_batch(part))
    for (hi, lo, length), who, event_ns, received_ns in rows:
        twin.bind(hi, lo, length, who, event_ns, received_ns)
    assert ask(circle, questions) == [twin.holders(*a, t, known) for a, t, known in questions]


@given(BASIS, st.lists(st.tuples(st.integers(-1, 3), TIMES, TIMES), min_size=1, max_size=20))
def test_bases_equal_the_twin(rows, questions):
    circle, twin = Circle(KEY, capacity=4), NaiveCircle()
    circle.set_basis(basis_batch([*rows, (3, 1, 9, 9)]))  # subscriber 3 is known of
    for row in [*rows, (3, 1, 9, 9)]:
        twin.set_basis(*row)
    out = np.zeros(len(questions), np.uint8)
    columns = [np.array(c) for c in zip(*questions, strict=True)]
    bases(circle.arrays, columns[0].astype(np.int32), columns[1], columns[2], out)
    assert out.tolist() == [twin.bases(*question) for question in questions]


def test_a_full_table_grows_and_forgets_nobody():
    circle = Circle(KEY, capacity=4)
    rows = [((V6 + n, 0, 64), n, 0, 0) for n in range(500)]
    circle.bind(binding_batch(rows))
    assert ask(circle, [((V6 + n, 77), 1, 1) for n in range(500)]) == list(range(500))


@pytest.mark.parametrize(("known_ns", "holder"), [(4, 1), (5, 2)])
def test_what_was_not_known_yet_does_not_count(known_ns, holder):
    circle = Circle(KEY)
    address = (0, 0xFFFF_C000_0201)
    circle.bind(binding_batch([((*address, 128), 1, 0, 0), ((*address, 128), 2, 3, 5)]))
    assert ask(circle, [(address, 4, known_ns)]) == [holder]


@pytest.mark.parametrize("length", [96, 97, 100, 103, 104, 105, 111, 112, 119, 120, 121, 127, 128])
def test_a_prefix_of_any_width_holds_its_first_address_and_its_last(length):
    holds_both_ends(0xFFFF_CB00_71FF, length)


@pytest.mark.parametrize("length", [0, 1, 16, 39, 40, 41, 47, 48, 55, 56, 57, 63, 64, 65, 128])
def test_a_prefix_of_ipv6_does_too(length):
    holds_both_ends((V6 + 0xABCD) << 64 | 0x1234_5678_9ABC_DEF0, length)


def holds_both_ends(address: int, length: int) -> None:
    size = 1 << 128 - length
    first = address // size * size
    circle = Circle(KEY)
    circle.bind(binding_batch([((first >> 64, first % (1 << 64), length), 7, 0, 0)]))
    places = [first, address, first + size // 2, first + size - 1]
    outside = [p for p in (first - 1, first + size) if 0 <= p < 1 << 128]
    asked = [((p >> 64, p % (1 << 64)), 1, 1) for p in (*places, *outside)]
    assert ask(circle, asked) == [7] * len(places) + [-1] * len(outside)
