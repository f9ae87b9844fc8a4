"""What the fraud score asks, by SQL against the same in plain Python, and figures told one by one."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.words import BindingKind, ParkReason, Status, Verdict
from pipeline.store.features import evidence
from tests.naive import features as naive
from tests.naive.folds import fold_all
from tests.score.making import NOON, an_id
from tests.store.store_rows import SECOND, Filled, dicts

HOUR, DAY = 3600 * SECOND, 86400 * SECOND
# A question costs a third of a second: few examples with many rows.
FEW = settings(max_examples=min(25, settings.default.max_examples))


@pytest.fixture(scope="module")
def filled(new_store):
    return Filled(new_store())


@pytest.fixture
def story(filled):
    filled.clear()
    return filled


def known(story: Filled, key: str = "C-1", **position: int):
    """The figures of a conversion."""
    at = story.position() | position
    found = evidence(story.store, story.store.folds(at, None, NOON, 1), at)
    (row,) = [r for r in dicts(found.features) if r["conversion_key"] == an_id(key)]
    return row


def buy(story: Filled, key: str = "C-1", **changes) -> None:
    story.add("purchases", {"conversion_key": key, "click_id": "click", **changes})


def test_traffic_is_of_the_visit_that_opened_last_before_the_purchase(story):
    story.add("clicks", {})
    story.add(
        "visits",
        {"last_ns": NOON - 9},
        {"version": 2, "last_ns": NOON - 5},
        {"visit_id": "late", "opened_ns": NOON + 1, "last_ns": NOON + 9},
        {"visit_id": "elsewhere", "partner": "bolt-mobile", "last_ns": NOON - 1},
        {"visit_id": "bobs", "subscriber_id": "bob", "last_ns": NOON - 2},
    )
    buy(story)
    assert known(story)["traffic_ns"] == NOON - 5
    assert known(story, visits=1)["traffic_ns"] == NOON - 9
    assert known(story, visits=0)["traffic_ns"] == 0


def test_clicks_are_counted_over_the_hour_that_ends_with_the_one_named(story):
    times = {"click": 0, "same": 0, "edge": -HOUR, "before": -HOUR - 1, "after": 1}
    story.add("clicks", *({"click_id": k, "clicked_ns": NOON + t} for k, t in times.items()))
    story.add("clicks", {"click_id": "bobs", "subscriber_id": "bob", "clicked_ns": NOON})
    buy(story)
    assert known(story)["clicks_hour"] == 3


def test_the_record_is_that_of_the_moment_of_buying(story):
    story.add("clicks", {}, {"click_id": "bobs", "subscriber_id": "bob"})
    buy(story)
    for n in range(4):
        buy(story, f"before {n}", event_ns=NOON - DAY + n)
    buy(story, "after", event_ns=NOON + 1, status=Status.DECLINED, status_ns=NOON - 1)
    buy(story, "of bob", event_ns=NOON - DAY, click_id="bobs")
    declined = {"status": Status.DECLINED, "event_ns": NOON - DAY}
    buy(story, "before 0", status_ns=NOON, **declined)
    buy(story, "before 1", status_ns=NOON + 1, **declined)
    row = known(story)
    assert (row["orders_before"], row["reversed_before"]) == (4, 1)


def test_of_one_order_claimed_by_two_members_the_first_wins(story):
    story.add("clicks", {}, {"click_id": "bobs", "subscriber_id": "bob"})
    buy(story, "first", order_ref="o-1", event_ns=NOON - 1)
    buy(story, "second line", order_ref="o-1", event_ns=NOON)
    buy(story, "other", order_ref="o-1", click_id="bobs")
    buy(story, "unrelated", order_ref="o-2", click_id="bobs")
    claims = {k: known(story, k)["claimed_before"] for k in ("first", "second line", "unrelated")}
    assert claims == {"first": 0, "second line": 0 + known_before(), "unrelated": 0}
    assert known(story, "other")["claimed_before"] == 1 + (not known_before())


def known_before() -> int:
    """Does the conversion `other` come before `second line`, which was bought in the same moment?"""
    return int(naive.uuid_order(an_id("other")) < naive.uuid_order(an_id("second line")))


def test_one_order_by_two_partners_needs_the_same_amount_and_day(story):
    story.add("clicks", {}, {"click_id": "bolt", "partner": "bolt-mobile"})
    buy(story, order_ref="o-1")
    bolt = {"order_ref": "o-1", "click_id": "bolt", "partner": "bolt-mobile"}
    buy(story, "another amount", **bolt, amount_minor=7, event_ns=NOON - 1)
    buy(story, "another day", **bolt, event_ns=NOON - DAY - 1)
    assert known(story)["claimed_before"] == 0
    buy(story, "the same", **bolt, event_ns=NOON - DAY)
    assert known(story)["claimed_before"] == 1


def test_members_who_buy_from_one_address_are_counted_over_a_day(story):
    there = {"match_hash": "address", "match_ns": NOON, "click_id": ""}
    for who, event_ns in {"ann": NOON, "bob": NOON - DAY, "eve": NOON - DAY - 1}.items():
        buy(story, who, member_id=who, event_ns=event_ns, **there)
    buy(story, "later", member_id="dan", **(there | {"event_ns": NOON + 1}))
    assert known(story, "ann")["members_at_address"] == 2


def test_an_address_is_foreign_unless_it_was_the_members_then(story):
    story.add("bindings", {"event_ns": NOON - HOUR}, {"event_ns": NOON, "subscriber_id": "bob"})
    for minutes, foreign in ((-61, 1), (-1, 0), (0, 1)):
        buy(story, f"at {minutes}", member_id="ann", click_id="", match_hash="address",
            match_ns=NOON + minutes * 60 * SECOND)  # fmt: skip
        assert known(story, f"at {minutes}")["address_foreign"] == foreign
    assert known(story, "at -1", bindings=0)["address_foreign"] == 1


def test_idle_is_counted_from_the_visit_before_with_whatever_partner(story):
    story.add("clicks", {})
    story.add("visits", {"opened_ns": NOON - HOUR, "last_ns": NOON})
    buy(story)
    assert known(story)["idle_ns"] == 0, "who was never seen before has not been away"
    before = {"visit_id": "old", "partner": "bolt-mobile", "opened_ns": NOON - 400 * DAY}
    story.add("visits", {**before, "last_ns": NOON - 399 * DAY})
    assert known(story)["idle_ns"] == 399 * DAY - HOUR


def test_a_message_may_tell_of_another_affiliates_click(story):
    story.add("clicks", {})
    buy(story, click_ref="ours", coupon="SAVE")
    assert (known(story)["other_click"], known(story)["coupon"]) == (0, "SAVE")
    buy(story, "foreign", click_ref="hash:x", click_id="")
    buy(story, "told", reason="other_click")
    assert [known(story, k)["other_click"] for k in ("foreign", "told")] == [1, 1]


def command(key: str, verdict: str, **changes) -> dict:
    body = {"conversion_key": str(uuid.UUID(bytes=an_id(key))), "verdict": verdict, "reason": "so"}
    return {"kind": "review", "body": json.dumps(body), "event_ns": NOON, **changes}


def test_the_last_decision_below_the_position_counts(story):
    buy(story)
    story.add("commands", command("C-1", "release", actor="eve"), command("C-1", "decline"))
    verdicts = []
    for rows in range(3):
        at = story.position() | {"commands": rows}
        (row,) = dicts(evidence(story.store, story.store.folds(at, None, NOON, 1), at).reviews)
        verdicts.append(row["verdict"])
    assert verdicts == [Verdict.NONE, Verdict.RELEASE, Verdict.DECLINE]
    assert row["reason"] == "so"
    assert row["decided_ns"] == NOON
    since = story.position() | {"commands": 1}
    assert len(story.store.folds(story.position(), since, NOON, 9)) == 1
    assert len(story.store.folds(story.position(), story.position(), NOON, 9)) == 0


def test_nothing_is_asked_about_no_conversion(story):
    at = story.position()
    found = evidence(story.store, story.store.folds(at, None, NOON, 1), at)
    assert len(found.features) == len(found.reviews) == 0


def test_a_click_is_marked_by_what_was_seen_until_then(story):
    story.add("clicks", {"clicked_ns": NOON - HOUR})
    buy(story)
    versions = (
        ({}, 0),
        ({"tracker_ns": NOON - HOUR + 1}, 0),
        ({"tracker_ns": NOON - HOUR}, 1),
        ({"mark": "awc", "last_ns": NOON - HOUR + 1}, 0),
        ({"mark": "awc", "last_ns": NOON - HOUR}, 1),
        ({}, 1),
    )
    for number, (version, marked) in enumerate(versions):
        story.add("visits", {"version": number + 1, **version})
        at = story.position()
        (touch,) = dicts(evidence(story.store, story.store.folds(at, None, NOON, 1), at).touches)
        assert touch["marked"] == marked, version


def test_the_standing_is_of_those_asked_for_below_the_position(story):
    story.add(
        "basis",
        {"state": 1, "event_ns": NOON},
        {"state": 2, "event_ns": NOON - 1},
        {"subscriber_id": "bob"},
        {"state": 3, "event_ns": NOON + 1},
    )
    buy(story)
    at = story.position() | {"basis": 3}
    found = evidence(story.store, story.store.folds(at, None, NOON, 1), at, [an_id("ann")])
    assert found.standing == {an_id("ann"): [(NOON - 1, 2), (NOON, 1)]}


# Against the twin

PARTNERS = ("acme-shop", "bolt-mobile")
PARTNER = dict(zip("abcdef", PARTNERS * 3, strict=True))
CLICKS = {
    f"click {n}": {
        "subscriber_id": "ab"[n % 2],
        "partner": PARTNERS[n // 2 % 2],
        "clicked_ns": NOON - (n % 3) * HOUR // 2,
        "visit_id": f"visit {n % 4}",
    }
    for n in range(6)
}
VISITS = {
    f"visit {n}": {
        "subscriber_id": "ab"[n % 2],
        "partner": PARTNERS[n // 2 % 2],
        "opened_ns": NOON - (n % 3 + 1) * HOUR,
    }
    for n in range(6)
}
moments = st.sampled_from([NOON - 2 * DAY, NOON - DAY, NOON - HOUR, NOON - 1, NOON, NOON + HOUR])
message = st.fixed_dictionaries(
    {
        "conversion_key": st.sampled_from("abcdef"),
        "status": st.sampled_from((Status.APPROVED, Status.DECLINED, Status.PENDING)),
        "amount_minor": st.integers(1, 2),
        "event_ns": moments,
        "status_ns": st.one_of(st.just(0), moments),
        "received_ns": moments,
        "order_ref": st.sampled_from(("", "o-1", "o-2")),
        "coupon": st.sampled_from(("", "", "X", "Y")),
        "click_ref": st.sampled_from(("", "", "ref")),
        "reason": st.sampled_from(("", "", "other_click")),
        "click_id": st.sampled_from(("", "unknown", *CLICKS)),
        "member_id": st.sampled_from(("", "", "a", "b")),
        "match_hash": st.sampled_from(("", "", "address", "another")),
        "match_ns": moments,
        "parked": st.sampled_from((ParkReason.NONE,) * 6 + (ParkReason.MALFORMED,)),
    }
).map(lambda row: {**row, "partner": PARTNER[row["conversion_key"]]})
binding = st.fixed_dictionaries(
    {
        "address_hash": st.sampled_from(("address", "another")),
        "subscriber_id": st.sampled_from("ab"),
        "kind": st.sampled_from(BindingKind),
        "event_ns": moments,
        "received_ns": moments,
    }
)
visit = st.builds(
    lambda name, length, version: {
        "visit_id": name,
        **VISITS[name],
        "last_ns": VISITS[name]["opened_ns"] + length,
        **version,
    },
    st.sampled_from(tuple(VISITS)),
    st.sampled_from((0, 60 * SECOND, HOUR)),
    st.fixed_dictionaries(
        {
            "mark": st.sampled_from(("", "", "awc")),
            "tracker_ns": st.sampled_from((0, 0, NOON - 2 * HOUR, NOON)),
            "ambiguous": st.integers(0, 1),
        }
    ),
)
click = st.sampled_from(tuple(CLICKS)).map(lambda name: {"click_id": name, **CLICKS[name]})
review = st.builds(command, st.sampled_from("abc"), st.sampled_from(("release", "decline")))
worlds = st.fixed_dictionaries(
    {
        "visits": st.lists(visit, max_size=8),
        "clicks": st.lists(click, max_size=6, unique_by=lambda row: row["click_id"]),
        "bindings": st.lists(binding, max_size=5),
        "purchases": st.lists(message, min_size=1, max_size=24),
        "commands": st.lists(review, max_size=3),
    }
)


def build(filled: Filled, streams: dict) -> None:
    filled.clear()
    for stream, rows in streams.items():
        filled.add(stream, *rows)


def position_in(data, rows: dict[str, int], what: str) -> dict[str, int]:
    """A position; each stream is more often whole than not."""
    return {
        s: data.draw(st.one_of(st.just(n), st.just(n), st.integers(0, n)), label=f"{s} {what}")
        for s, n in rows.items()
    }


def without(rows: list[dict], *names: str) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in names} for row in rows]


@pytest.mark.slow
@FEW
@given(worlds, st.data())
def test_the_sql_finds_what_the_twin_does(filled, streams, data):
    build(filled, streams)
    at = position_in(data, filled.position(), "rows")
    folds = filled.store.folds(at, None, NOON, 1)
    found = evidence(filled.store, folds, at)
    rows = fold_all(filled.streams, at)
    assert without(dicts(found.features), "offset", "row_hash") == naive.features(
        filled.streams, at, rows
    )
    assert without(dicts(found.touches), "offset", "row_hash") == naive.touches(
        filled.streams, at, rows
    )
    chosen = ("verdict", "actor", "reason")
    told = [{name: row[name] for name in chosen} for row in dicts(found.reviews)]
    assert told == naive.reviews(filled.streams, at, rows)


@pytest.mark.slow
@FEW
@given(worlds, st.data())
def test_no_conversion_whose_figures_changed_is_left_out(filled, streams, data):
    build(filled, streams)
    now = position_in(data, filled.position(), "rows")
    since = position_in(data, now, "rows before")
    found = {bytes(key) for key in filled.store.folds(now, since, 0, 1).conversion_key}
    assert naive.touched(filled.streams, since, now, fold_all) <= found
    before, after = (told_of(filled, position) for position in (since, now))
    assert {key for key, clicks in after.items() if before.get(key, clicks) != clicks} <= found


def told_of(filled: Filled, at: dict[str, int]) -> dict[bytes, list[dict]]:
    """The clicks of each conversion at a position."""
    rows = fold_all(filled.streams, at)
    clicks = naive.touches(filled.streams, at, rows)
    return {
        fold["conversion_key"]: without([t for t in clicks if t["row"] == n], "row")
        for n, fold in enumerate(rows)
    }
