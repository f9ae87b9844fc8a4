"""Who a member was at a time: the naive twin, and ends of months."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.columns import ids
from pipeline.model.times import parse_time
from pipeline.score.members import Standing, holding
from tests.naive.rules import member_at
from tests.score import drawing
from tests.score.making import DAY_NS, NOON, an_id

asked = st.lists(st.tuples(st.sampled_from((*drawing.MEMBERS, "who")), drawing.days), max_size=8)


@given(drawing.known, asked, st.sampled_from(["UTC", "Pacific/Auckland", "America/New_York"]))
def test_equals_the_naive_twin(known, asked, zone) -> None:
    who, when = [an_id(name) for name, _ in asked], np.array([at for _, at in asked], np.int64)
    standing = Standing(drawing.member_batch(known), ids(who), when, zone)
    gold, tv = standing.in_levels(["gold"]), standing.has_products(["tv"])
    for row, (member, (_, at)) in enumerate(zip(who, asked, strict=True)):
        expected = member_at(known, member, at, zone)
        assert standing.tenure_months[row] == expected["months"]
        assert standing.level.text(row) == expected["level"]
        assert standing.products.text(row).split() == expected["products"]
        assert (gold[row], tv[row]) == (expected["level"] == "gold", "tv" in expected["products"])


def test_nothing_known_is_no_row() -> None:
    one = np.array([NOON])
    assert holding(drawing.member_batch([]), ids([an_id("ann")]), one).tolist() == [-1]
    standing = Standing(None, ids([an_id("ann")]), one, "UTC")
    assert standing.tenure_months.tolist() == [-1]
    assert not standing.in_levels([""]).any()


def test_a_row_holds_from_its_time_on() -> None:
    rows = [
        {"subscriber_id": an_id("ann"), "since_ns": NOON + n * DAY_NS, "level": level}
        for n, level in enumerate(("GOLD", "silver"))
    ]
    when = NOON + np.array([-1, 0, DAY_NS - 1, DAY_NS], np.int64)
    standing = Standing(drawing.member_batch(rows[::-1]), ids([an_id("ann")] * 4), when, "UTC")
    assert standing.level.to_list() == ["", "gold", "gold", "silver"]


def test_months_are_over_on_the_same_day_or_the_last() -> None:
    joined = parse_time("2026-01-31T10:00:00Z")
    days = ["2026-02-27", "2026-02-28", "2026-03-30", "2026-03-31", "2026-04-29", "2026-04-30"]
    when = np.array([parse_time(f"{day}T09:00:00Z") for day in days], np.int64)
    ann = {"subscriber_id": an_id("ann"), "since_ns": 0, "joined_ns": joined}
    standing = Standing(drawing.member_batch([ann]), ids([an_id("ann")] * 6), when, "UTC")
    assert standing.tenure_months.tolist() == [0, 1, 1, 2, 2, 3]
