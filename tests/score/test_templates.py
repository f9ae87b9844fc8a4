"""Texts with places are the JSON of the structure with the values in them."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.score.templates import Place, Template, alike, escaped, mixed

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("100 % \x00"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(plain)
def test_what_has_no_place_is_dumped(value: Any) -> None:
    texts = Template(value).fill(np.arange(2), lambda _name, _rows: [])
    assert texts == [json.dumps(value, separators=(",", ":"))] * 2


def test_places_are_filled_in_their_order() -> None:
    told = {"a%": ["5 %", Place("%s of %s", "one", "two")], "n": Place("%d", "two", bare=True)}
    values = {"one": ["x", "y"], "two": [1, 2]}
    texts = Template(told).fill(np.arange(2), lambda name, rows: [values[name][r] for r in rows])
    assert texts == ['{"a%":["5 %","x of 1"],"n":1}', '{"a%":["5 %","y of 2"],"n":2}']
    assert Template([Place(f"{escaped('%')}%s", "one")]).fill(np.arange(1), lambda *_: ["z"]) == [
        '["%z"]'
    ]


@given(st.lists(st.tuples(*[st.sampled_from([0, 1, 7, 2**62])] * 4), max_size=12))
def test_mixed_numbers_are_equal_where_all_columns_are(rows: list[tuple[int, ...]]) -> None:
    columns = [np.array([row[n] for row in rows], np.int64) for n in range(4)]
    found = mixed(columns).tolist()
    for one, other in product(range(len(rows)), repeat=2):
        assert (found[one] == found[other]) == (rows[one] == rows[other])
    groups = alike(np.array(found, np.int64))
    assert sorted(row for group in groups for row in group.tolist()) == list(range(len(rows)))
