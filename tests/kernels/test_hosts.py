"""One table of host names: naive equals fast, and a look-alike is never somebody."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels.hosts import NOBODY, codes_of, host_table, lookup_hosts, work_for
from pipeline.model.columns import TextColumn
from tests.naive import hosts as naive

LABELS = st.sampled_from(["a", "b", "c", "shop", "acme", "xn--bcher-kva", "x" * 30, "x" * 63])
NAMES = st.lists(LABELS, min_size=1, max_size=6).map(lambda labels: ".".join(labels)[-255:])
CODES = st.integers(-(2**31), 2**31 - 1)
ENTRIES = st.dictionaries(NAMES, st.tuples(CODES, CODES), max_size=12)
RAW = st.text(alphabet="abA.-_", max_size=14) | NAMES


def table_of(entries: dict[str, tuple[int, int]]):
    exact, under = [e for e, _ in entries.values()], [u for _, u in entries.values()]
    return host_table(TextColumn.of(entries), exact, under)


@given(ENTRIES, st.lists(RAW, max_size=20), st.lists(NAMES, max_size=4))
def test_kernel_equals_naive(entries, hosts, more):
    hosts += list(entries) + [f"{name}.{entry}" for name in more for entry in entries]
    hosts += [f"x{entry}" for entry in entries] + [f"{entry}.x" for entry in entries]
    found = codes_of(table_of(entries), TextColumn.of(hosts))
    assert found.tolist() == naive.lookup_hosts(entries, hosts)


@given(ENTRIES, st.lists(NAMES, min_size=1, max_size=40), st.integers(1, 5))
def test_the_size_of_blocks_does_not_show(entries, hosts, size):
    column, table = TextColumn.of(hosts), table_of(entries)
    out = np.zeros(len(hosts), np.int32)
    lookup_hosts(table, column.data, column.offsets, out, work_for(size))
    assert out.tolist() == naive.lookup_hosts(entries, hosts)


ACME = {"acme.example": (1, 2), "pay.acme.example": (3, 4)}


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("acme.example", 1),
        ("m.acme.example", 2),
        ("a.b.c.acme.example", 2),
        ("pay.acme.example", 3),
        ("x.pay.acme.example", 4),
        ("xpay.acme.example", 2),
        ("acme.example.evil.example", NOBODY),
        ("notacme.example", NOBODY),
        ("acme.example.", NOBODY),
        (".acme.example", NOBODY),
        ("m..acme.example", NOBODY),
        ("a..m.acme.example", NOBODY),
        ("ACME.example", NOBODY),
        ("acme.exampl", NOBODY),
        ("example", NOBODY),
        (".", NOBODY),
        ("", NOBODY),
        ("192.0.2.1", NOBODY),
    ],
)
def test_label_boundaries(host, code):
    assert codes_of(table_of(ACME), TextColumn.of([host])).tolist() == [code]


def test_the_longest_names_and_names_beyond():
    name = ".".join(["a" * 49] * 5) + ".bcdef"
    assert len(name) == 255
    table = table_of({name: (5, 6), "bcdef": (7, 8)})
    hosts = [name, "b." + name[2:], "a" + name, "." * 255, "a" * 4000, "a." * 5000 + "bcdef"]
    assert codes_of(table, TextColumn.of(hosts)).tolist() == [5, 8] + [NOBODY] * 4


def test_many_labels():
    """128 labels of one letter are the most that fit."""
    deep = ".".join(["a"] * 128)
    table = table_of({deep: (1, 2), "a": (3, 4)})
    hosts = [deep, deep[2:], "a", *[deep] * 40]
    assert codes_of(table, TextColumn.of(hosts)).tolist() == [1, 4, 3] + [1] * 40


def test_an_empty_table_knows_nobody():
    assert codes_of(table_of({}), TextColumn.of(["acme.example", ""])).tolist() == [NOBODY] * 2
    assert codes_of(table_of(ACME), TextColumn.of([])).tolist() == []


def test_a_part_of_a_column_will_do():
    """Offsets need not begin at zero, and other bytes may follow."""
    column = TextColumn.of(["junk.", *ACME, "more.junk"])
    part = TextColumn(column.data, column.offsets[1:4])
    assert codes_of(host_table(part, [1, 3], [2, 4]), column).tolist() == [NOBODY, 1, 3, NOBODY]
    first = TextColumn(column.data, column.offsets[1:3])
    assert codes_of(host_table(first, [1], [2]), part).tolist() == [1, 2]


def test_names_that_share_a_hash_slot_are_told_apart():
    """A full table has chains; every entry is found and nothing else is."""
    count = 1000
    entries = {f"shop-{i}.example": (i, i + count) for i in range(count)}
    table = table_of(entries)
    assert codes_of(table, TextColumn.of(entries)).tolist() == list(range(count))
    under = TextColumn.of(f"www.{name}" for name in entries)
    assert codes_of(table, under).tolist() == list(range(count, 2 * count))
    others = TextColumn.of(f"shop-{i}.example" for i in range(count, 3 * count))
    assert set(codes_of(table, others).tolist()) == {NOBODY}


def test_bytes_are_compared_where_hashes_agree():
    """An entry whose stored name is changed under an unchanged hash is found no more."""
    table = table_of({"acme.example": (1, 2)})
    at = bytes(table.records).index(b"acme.example")
    for place in range(at, at + 12):
        table.records[place] ^= 1
        assert codes_of(table, TextColumn.of(["acme.example"])).tolist() == [NOBODY]
        table.records[place] ^= 1
    assert codes_of(table, TextColumn.of(["acme.example"])).tolist() == [1]


def test_names_of_no_length_are_refused():
    with pytest.raises(AssertionError):
        host_table(TextColumn.of([""]), [1], [1])
    with pytest.raises(AssertionError):
        host_table(TextColumn.of(["a" * 256]), [1], [1])
