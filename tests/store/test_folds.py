"""Folds by SQL against the same in plain Python, and stories told row by row."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.columns import TextColumn
from pipeline.model.words import AmountMode, Basis, BindingKind, OrderBy, ParkReason, Status
from pipeline.store.clickhouse_schema import ConversionBatch
from tests.naive import folds as naive
from tests.score.making import NOON, an_id, make
from tests.store.store_rows import SECOND, Filled, batch_of_rows, dicts, put

ABSOLUTE, DELTA = AmountMode.ABSOLUTE, AmountMode.DELTA
ARRIVAL = OrderBy.ARRIVAL
HOUR = 3600 * SECOND
# A question costs a fifth of a second, most of it for reading the SQL: few examples with many rows.
FEW = settings(max_examples=min(25, settings.default.max_examples))


@pytest.fixture(scope="module")
def filled(new_store):
    return Filled(new_store())


@pytest.fixture
def story(filled):
    filled.clear()
    return filled


def at(minutes: int) -> dict[str, int]:
    """A message whose sender says when its status came about."""
    return {"status_ns": NOON + minutes * 60 * SECOND}


def fold_of(story: Filled, **position: int):
    """The only fold there is."""
    found = dicts(story.store.folds(story.position() | position, None, NOON, 1))
    assert len(found) == 1
    return found[0]


def told(story: Filled, *rows: dict, **position: int):
    story.add("purchases", *rows)
    row = fold_of(story, **position)
    return Status(row["status"]).name, row["amount_minor"]


# What the messages of one conversion come to


def test_the_last_status_by_sender_time_holds_whatever_came_last(story):
    rows = [{"status": Status.APPROVED, **at(9)}, {"status": Status.PENDING, **at(1)}]
    assert told(story, *rows) == ("APPROVED", 1000)


def test_a_decline_undoes_an_approval_by_its_own_later_time(story):
    rows = [{"status": Status.DECLINED, **at(9)}, {"status": Status.APPROVED, **at(1)}]
    assert told(story, *rows) == ("DECLINED", 1000)


def test_an_approval_after_a_decline_is_one_again(story):
    rows = [{"status": s, **at(n)} for n, s in enumerate((Status.APPROVED, Status.DECLINED))]
    assert told(story, *rows)[0] == "DECLINED"
    assert told(story, {"status": Status.APPROVED, **at(5)})[0] == "APPROVED"


def test_at_the_same_time_the_higher_status_holds(story):
    rows = [{"status": Status.APPROVED, **at(1)}, {"status": Status.PENDING, **at(1)}]
    assert told(story, *rows)[0] == "APPROVED"


@pytest.mark.parametrize("order", [{"order_by": ARRIVAL}, at(9)], ids=["by arrival", "by time"])
def test_a_late_pending_says_nothing_once_there_is_a_confirmation(story, order):
    story.add("purchases", {"status": Status.APPROVED, "amount_minor": 600, **order})
    late = {"status": Status.PENDING, "amount_minor": 999, **order}
    late |= {"status_ns": order["status_ns"] + 1} if "status_ns" in order else {}
    assert told(story, late) == ("APPROVED", 600)
    assert fold_of(story)["facts"] == 2


def test_a_pending_after_a_decline_opens_the_question_again(story):
    assert told(story, {"status": 5, **at(1)}, {"status": 1, **at(2)})[0] == "PENDING"


def test_without_sender_time_the_order_is_that_of_arrival(story):
    rows = [{"amount_minor": n, "order_by": ARRIVAL, "received_ns": NOON - n} for n in (1000, 600)]
    assert told(story, *rows) == ("APPROVED", 600)
    assert told(story, {"amount_minor": 1000, "order_by": ARRIVAL}) == ("APPROVED", 1000)


def test_where_both_kinds_meet_arrival_counts_as_time(story):
    rows = [
        {"amount_minor": 1, "order_by": ARRIVAL, "received_ns": NOON + 5 * 60 * SECOND},
        {"amount_minor": 2, **at(9)},
        {"amount_minor": 3, **at(1)},
    ]
    assert told(story, rows[0], rows[2]) == ("APPROVED", 1)
    assert told(story, rows[1]) == ("APPROVED", 2)


def test_deltas_add_to_the_last_absolute_amount_before_them(story):
    rows = [
        {"amount_minor": 1000, "commission_minor": 80, **at(1)},
        {"amount_minor": -300, "commission_minor": -24, "amount_mode": DELTA, **at(2)},
        {"amount_minor": -100, "amount_mode": DELTA, **at(3)},
    ]
    assert told(story, *reversed(rows)) == ("APPROVED", 600)
    assert fold_of(story)["commission_minor"] == 56
    assert told(story, {"amount_minor": 700, **at(4)}) == ("APPROVED", 700)


def test_deltas_alone_add_up(story):
    rows = [{"amount_minor": n, "amount_mode": DELTA, **at(n)} for n in (5, 7)]
    assert told(story, *rows) == ("APPROVED", 12)


def test_an_equal_delta_at_its_place_is_the_same_message_again(story):
    row = {"amount_minor": -5, "amount_mode": DELTA, **at(1)}
    again = row | {"message_id": "again", "received_ns": NOON + HOUR}
    assert told(story, {"amount_minor": 100, **at(0)}, row, again) == ("APPROVED", 95)
    assert told(story, {**row, "amount_minor": -7, "message_id": "other"})[1] == 88
    assert fold_of(story)["facts"] == 4


@pytest.mark.parametrize("order", ["12n", "n21", "1n2", "1nn2n"])
def test_equal_deltas_that_the_sender_numbered_are_as_many_as_there_are(story, order):
    row = {"amount_minor": -5, "amount_mode": DELTA, **at(1)}
    refunds = [
        row | {"message_id": f"{name} {n}", "id_given": int(name != "n")}
        for n, name in enumerate(order)
    ]
    assert told(story, {"amount_minor": 100, **at(0)}, *refunds) == ("APPROVED", 90)


@pytest.mark.parametrize("order", ["1n2", "n12", "12n", "21"])
def test_numbered_deltas_that_came_without_a_time_are_as_many_as_there_are(story, order):
    row = {"amount_minor": -5, "amount_mode": DELTA, "order_by": ARRIVAL}
    refunds = [row | {"message_id": name, "id_given": int(name != "n")} for name in order]
    story.add("purchases", {"amount_minor": 100, "order_by": ARRIVAL})
    assert told(story, *refunds) == ("APPROVED", 90)


def test_a_line_that_is_read_again_undoes_nothing(story):
    """A report dropped twice, or a unit read again: its lines come under the ids they had."""
    lines = [
        {"status": Status.APPROVED, "order_by": ARRIVAL, "message_id": "line 1"},
        {"status": Status.DECLINED, "order_by": ARRIVAL, "message_id": "line 2"},
    ]
    assert told(story, *lines)[0] == "DECLINED"
    before = fold_of(story)
    assert told(story, lines[0])[0] == "DECLINED"
    assert told(story, *lines, {**lines[0], "conversion_key": "C-1"})[0] == "DECLINED"
    assert fold_of(story) == before


def test_deltas_that_are_read_again_count_once(story):
    lines = [
        {"amount_mode": DELTA, "order_by": ARRIVAL, "amount_minor": n, "message_id": f"line {n}"}
        for n in (10, 5)
    ]
    assert told(story, *lines, *lines, *reversed(lines)) == ("APPROVED", 15)


@pytest.mark.parametrize("names", ["xy", "yx"])
def test_which_of_two_kinds_at_one_place_holds_is_not_the_ids_to_say(story, names):
    kinds = dict(zip(names, ("lead", "sale"), strict=True))
    rows = [{**at(1), "message_id": name, "kind": kind} for name, kind in kinds.items()]
    story.add("purchases", *rows)
    assert fold_of(story)["kind"] == "sale"


@pytest.mark.parametrize("names", ["xy", "yx"])
def test_at_one_place_the_larger_amount_holds_whatever_the_ids_are(story, names):
    """The id of a message whose sender gave none contains when it came, so it may not decide."""
    rows = [
        {**at(1), "message_id": n, "amount_minor": m} for n, m in zip(names, (5, 7), strict=True)
    ]
    assert told(story, *rows) == ("APPROVED", 7)


def test_parked_messages_do_not_count(story):
    rows = [{**at(1)}, {"status": Status.DECLINED, "parked": ParkReason.BAD_AMOUNT, **at(2)}]
    assert told(story, *rows)[0] == "APPROVED"
    assert fold_of(story)["facts"] == 1


def test_messages_behind_the_position_do_not_count(story):
    assert told(story, at(1), {"status": Status.DECLINED, **at(2)}, purchases=1)[0] == "APPROVED"


def test_the_purchase_is_as_old_as_the_earliest_message_says(story):
    story.add("purchases", {"event_ns": NOON, **at(1)}, {"event_ns": NOON + HOUR, **at(2)})
    assert fold_of(story)["event_ns"] == NOON


def test_what_a_later_message_leaves_out_stays_known(story):
    story.add("purchases", {"click_id": "click", **at(1)}, {"kind": "", "click_id": "", **at(2)})
    row = fold_of(story)
    assert row["click_id"] == an_id("click")
    assert (row["kind"], row["currency"]) == ("sale", "EUR")


def test_items_go_along_with_the_amount_that_they_came_with(story):
    rows = [
        {"amount_minor": 900, "items": "[1]", **at(1)},
        {"amount_minor": 1000, "items": "[2]", **at(2)},
        {"amount_minor": 600, **at(3)},
        {"amount_minor": -100, "amount_mode": DELTA, "items": "[3]", **at(4)},
    ]
    assert told(story, *rows) == ("APPROVED", 500)
    row = fold_of(story)
    assert (row["items"], row["items_minor"]) == ("[2]", 1000)
    late = {"status": Status.PENDING, "amount_minor": 7, "items": "[4]", **at(5)}
    assert told(story, late) == ("APPROVED", 500)
    assert fold_of(story)["items"] == "[2]"


@pytest.mark.parametrize("names", ["xy", "yx"])
def test_of_two_lists_of_items_at_one_place_the_ids_do_not_choose(story, names):
    rows = [
        {**at(1), "message_id": name, "items": items}
        for name, items in zip(names, ("[1]", "[2]"), strict=True)
    ]
    story.add("purchases", *rows)
    assert (fold_of(story)["items"], fold_of(story)["facts"]) == ("[2]", 2)


# Click and visit


def test_a_click_is_found_once_it_came(story):
    story.add("clicks", {})
    story.add("visits", {"ambiguous": 1})
    story.add("purchases", {"click_id": "click"})
    before, after = fold_of(story, clicks=0), fold_of(story)
    assert (before["click_found"], before["click_subscriber"]) == (0, bytes(16))
    assert (after["click_found"], after["click_partner"]) == (1, "acme-shop")
    assert after["click_visit"] == an_id("visit")
    assert (before["visit_ambiguous"], after["visit_ambiguous"]) == (0, 1)
    assert fold_of(story, visits=0)["visit_ambiguous"] == 0


def test_the_newest_version_of_a_visit_counts_up_to_the_position(story):
    story.add("clicks", {})
    story.add("visits", {}, {"version": 2, "ambiguous": 1})
    story.add("purchases", {"click_id": "click"})
    assert fold_of(story, visits=1)["visit_ambiguous"] == 0
    assert fold_of(story)["visit_ambiguous"] == 1


def test_a_named_member_leads_to_the_last_visit_before_the_purchase(story):
    story.add(
        "visits",
        {"visit_id": "old", "opened_ns": NOON - 9 * HOUR},
        {"visit_id": "right", "opened_ns": NOON - HOUR},
        {"visit_id": "right", "opened_ns": NOON - HOUR, "mark": "awc", "basis": Basis.LISTED},
        {"visit_id": "late", "opened_ns": NOON + 1},
        {"visit_id": "elsewhere", "opened_ns": NOON - 1, "partner": "bolt-mobile"},
        {"visit_id": "others", "opened_ns": NOON - 1, "subscriber_id": "bob"},
    )
    story.add("purchases", {"member_id": "ann"})
    row = fold_of(story)
    assert (row["match_visit"], row["match_visit_ns"]) == (an_id("right"), NOON - HOUR)
    assert (row["match_marked"], row["match_basis"]) == (1, Basis.LISTED)


def test_a_tracker_passed_before_the_visit_marks_it_like_an_affiliate_mark(story):
    story.add("visits", {"tracker_ns": NOON - 2 * HOUR})
    story.add("purchases", {"member_id": "ann"})
    assert fold_of(story)["match_marked"] == 1
    story.add("visits", {"version": 2})
    assert fold_of(story)["match_marked"] == 0


def by_address(minutes: int = 0) -> dict:
    return {"match_hash": "address", "match_ns": NOON + minutes * 60 * SECOND}


def test_an_address_is_whose_it_was_at_that_time(story):
    story.add(
        "bindings",
        {"subscriber_id": "ann", "event_ns": NOON - HOUR},
        {"subscriber_id": "bob", "event_ns": NOON},
        {"subscriber_id": "", "event_ns": NOON + HOUR, "kind": BindingKind.END},
        {"subscriber_id": "eve", "event_ns": NOON, "address_hash": "another"},
    )
    story.add("visits", {}, {"visit_id": "bobs", "subscriber_id": "bob"})
    for minutes, member, visit in ((-1, "ann", "visit"), (0, "bob", "bobs"), (60, "", "")):
        story.streams["purchases"].clear()
        story.store.execute("TRUNCATE TABLE purchases_log")
        story.add("purchases", by_address(minutes))
        row = fold_of(story)
        assert (row["match_subscriber"], row["match_visit"]) == (an_id(member), an_id(visit))


def test_a_binding_that_came_late_is_known_from_its_cut_on(story):
    story.add("bindings", {"subscriber_id": "ann", "event_ns": NOON - HOUR})
    story.add("bindings", {"subscriber_id": "bob", "event_ns": NOON - HOUR // 2})
    story.add("purchases", by_address())
    assert fold_of(story, bindings=0)["match_subscriber"] == bytes(16)
    assert fold_of(story, bindings=1)["match_subscriber"] == an_id("ann")
    assert fold_of(story)["match_subscriber"] == an_id("bob")


def test_of_two_bindings_at_one_time_the_one_received_later_holds(story):
    story.add(
        "bindings",
        {"subscriber_id": "ann", "received_ns": NOON},
        {"subscriber_id": "bob", "received_ns": NOON - HOUR},
    )
    story.add("purchases", by_address())
    assert fold_of(story)["match_subscriber"] == an_id("ann")


# Which conversions


def keys_since(story: Filled, now_ns: int = NOON, fold: int = 9, **previous: int) -> set[bytes]:
    found = story.store.folds(story.position(), story.position() | previous, now_ns, fold)
    return {bytes(key) for key in found.conversion_key}


def test_only_what_changed_is_folded(story):
    story.add("purchases", {"conversion_key": "a"}, {"conversion_key": "b"})
    assert keys_since(story) == set()
    assert keys_since(story, purchases=1) == {an_id("b")}
    assert keys_since(story, purchases=0) == {an_id("a"), an_id("b")}


def test_an_old_purchase_is_folded_again_when_its_click_or_visit_came(story):
    story.add("visits", {"visit_id": "unrelated", "subscriber_id": "eve"}, {})
    story.add("clicks", {})
    story.add("bindings", {"address_hash": "of somebody"}, {})
    story.add(
        "purchases",
        {"conversion_key": "clicked", "click_id": "click"},
        {"conversion_key": "named", "member_id": "ann"},
        {"conversion_key": "addressed", **by_address()},
        {"conversion_key": "neither"},
    )
    assert keys_since(story) == set()
    assert keys_since(story, clicks=0) == {an_id("clicked")}
    assert keys_since(story, visits=1) == {an_id("clicked"), an_id("named"), an_id("addressed")}
    assert keys_since(story, bindings=1) == {an_id("addressed")}
    assert len(keys_since(story, visits=0, bindings=0)) == 3


def test_new_rules_fold_everything(story):
    story.add("purchases", {"conversion_key": "a"}, {"conversion_key": "b"})
    at_rules = story.position() | {"rulebooks": 2}
    before = at_rules | {"rulebooks": 1}
    assert len(story.store.folds(at_rules, before, NOON, 9)) == 2
    assert len(story.store.folds(at_rules, at_rules, NOON, 9)) == 0


def outcomes(story: Filled, *rows: dict) -> None:
    defaults = {"cut": rows[0]["fold"], "state": 1, "reason": 2, "release_ns": NOON}
    batch = make(ConversionBatch, list(rows), defaults)
    story.store.deliver_conversions(batch, rows[0]["fold"], an_id("run"))


@pytest.mark.slow
def test_what_is_held_comes_due_once(story):
    story.add("purchases", {"conversion_key": "held"})
    outcomes(story, {"conversion_key": "held", "fold": 3})
    assert keys_since(story, NOON - 1) == set()
    assert keys_since(story, NOON) == {an_id("held")}
    assert keys_since(story, NOON + HOUR) == {an_id("held")}
    assert keys_since(story, NOON, fold=3) == set(), "its own cut tells nothing yet"
    outcomes(story, {"conversion_key": "held", "fold": 4, "state": 2, "reason": 1})
    assert keys_since(story, NOON + HOUR) == set()
    assert keys_since(story, NOON + HOUR, fold=4) == {an_id("held")}


def test_rows_come_by_purchase_time_and_then_by_key(story):
    times = {"a": 2, "b": 1, "c": 1, "d": 1}
    for key, minutes in times.items():
        story.add("purchases", {"conversion_key": key, "event_ns": NOON + minutes})
    found = dicts(story.store.folds(story.position(), None, NOON, 1))
    assert [(r["event_ns"], r["conversion_key"]) for r in found] == sorted(
        (NOON + minutes, an_id(key)) for key, minutes in times.items()
    )


# Against the twin

ids_of = {
    "conversion_key": st.sampled_from("abcdef"),
    "click_id": st.sampled_from(("", "click", "other", "unknown")),
    "visit_id": st.sampled_from(("visit", "second", "third")),
    "subscriber_id": st.sampled_from(("ann", "bob")),
    "address_hash": st.sampled_from(("address", "another")),
}
# Few values, so that many rows are equal in all but one.
minutes = st.integers(-1, 1).map(lambda n: NOON + n * 60 * SECOND)
statuses = st.sampled_from((Status.PENDING, Status.APPROVED, Status.DECLINED) * 2 + tuple(Status))
partners = st.sampled_from(("acme-shop", "bolt-mobile"))
message = st.fixed_dictionaries(
    {
        "conversion_key": ids_of["conversion_key"],
        "status": statuses,
        "amount_mode": st.sampled_from((ABSOLUTE, DELTA)),
        "amount_minor": st.integers(-2, 2),
        "commission_minor": st.integers(0, 1),
        "currency": st.sampled_from(("EUR", "EUR", "")),
        "kind": st.sampled_from(("sale", "")),
        "event_ns": minutes,
        "received_ns": minutes,
        "click_id": ids_of["click_id"],
        "message_id": st.integers(0, 5).map(str),
        "id_given": st.integers(0, 1),
        "items": st.sampled_from(("", "", "[1]", "[2]")),
        "parked": st.sampled_from((ParkReason.NONE,) * 5 + (ParkReason.DUPLICATE,)),
    }
)
who = st.one_of(
    st.just({}),
    st.builds(lambda name: {"member_id": name}, ids_of["subscriber_id"]),
    st.builds(
        lambda address, when: {"match_hash": address, "match_ns": when},
        ids_of["address_hash"],
        minutes,
    ),
)
by_sender = st.fixed_dictionaries(
    {
        "order_by": st.just(OrderBy.SENDER),
        "status_ns": st.one_of(st.just(0), minutes),
        "sequence": st.integers(0, 1),
    }
)
by_arrival = st.just({"order_by": ARRIVAL})


def merged(*parts: dict) -> dict:
    return {key: value for part in parts for key, value in part.items()}


# A conversion belongs to one partner: its key is a hash of the partner's name too.
PARTNER = dict(zip("abcdef", ("acme-shop", "bolt-mobile") * 3, strict=True))


def of_one_partner(row: dict) -> dict:
    return {**row, "partner": PARTNER[row["conversion_key"]]}


senders = st.builds(merged, message, who, by_sender).map(of_one_partner)
anybody = st.builds(merged, message, who, st.one_of(by_sender, by_arrival)).map(of_one_partner)
clicks = st.fixed_dictionaries(
    {
        "click_id": st.sampled_from(("click", "other")),
        "visit_id": ids_of["visit_id"],
        "subscriber_id": ids_of["subscriber_id"],
        "partner": partners,
        "clicked_ns": minutes,
    }
)
bindings = st.fixed_dictionaries(
    {
        "address_hash": ids_of["address_hash"],
        "subscriber_id": ids_of["subscriber_id"],
        "kind": st.sampled_from(BindingKind),
        "event_ns": minutes,
        "received_ns": minutes,
    }
)
# Who a visit is of, with which partner and since when never changes from version to version.
VISITS = {
    "visit": {"subscriber_id": "ann", "partner": "acme-shop", "opened_ns": NOON - 60 * SECOND},
    "second": {"subscriber_id": "ann", "partner": "acme-shop", "opened_ns": NOON - 60 * SECOND},
    "third": {"subscriber_id": "bob", "partner": "bolt-mobile", "opened_ns": NOON},
}
visits = st.builds(
    lambda visit, version: {"visit_id": visit, **VISITS[visit], **version},
    ids_of["visit_id"],
    st.fixed_dictionaries(
        {
            "ambiguous": st.integers(0, 1),
            "basis": st.sampled_from(Basis),
            "mark": st.sampled_from(("", "", "awc")),
            "tracker_ns": st.sampled_from((0, 0, NOON)),
        }
    ),
)
world = st.fixed_dictionaries(
    {
        "visits": st.lists(visits, max_size=8),
        "clicks": st.lists(clicks, max_size=4),
        "bindings": st.lists(bindings, max_size=8),
    }
)


def build(filled: Filled, streams: dict, purchases: list[dict]) -> Filled:
    filled.clear()
    for stream, rows in {**streams, "purchases": purchases}.items():
        filled.add(stream, *rows)
    return filled


def position_in(filled: Filled, data) -> dict[str, int]:
    return {s: data.draw(st.integers(0, n), label=s) for s, n in filled.position().items()}


def without(rows: list[dict], *names: str) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in names} for row in rows]


def as_rows(found) -> list[dict]:
    return without(dicts(found), "offset", "row_hash")


@pytest.mark.slow
@FEW
@given(world, st.lists(anybody, max_size=40), st.data())
def test_the_sql_folds_as_the_twin_does(filled, streams, purchases, data):
    build(filled, streams, purchases)
    at = position_in(filled, data)
    assert as_rows(filled.store.folds(at, None, NOON, 1)) == naive.fold_all(filled.streams, at)


@pytest.mark.slow
@FEW
@given(world, st.lists(senders, min_size=2, max_size=30), st.data())
def test_the_order_of_arrival_does_not_matter_to_messages_with_sender_time(
    filled, streams, purchases, data
):
    """Ids of messages whose sender gave none contain the time of arrival, so they change, too."""
    purchases = [{**row, "message_id": f"first {n}"} for n, row in enumerate(purchases)]
    first = as_rows(build(filled, streams, purchases).store.folds(filled.position(), None, 0, 1))
    shuffled = data.draw(st.permutations(purchases))
    again = [
        {**row, "received_ns": NOON + n, "message_id": f"id {n}"} for n, row in enumerate(shuffled)
    ]
    second = as_rows(build(filled, streams, again).store.folds(filled.position(), None, 0, 1))
    assert without(first, "facts_hash") == without(second, "facts_hash")


@pytest.mark.slow
@FEW
@given(world, st.lists(anybody, max_size=30), st.data())
def test_no_conversion_whose_fold_changed_is_left_out(filled, streams, purchases, data):
    build(filled, streams, purchases)
    now = position_in(filled, data)
    since = {s: data.draw(st.integers(0, n), label=f"{s} before") for s, n in now.items()}
    everything = {row["conversion_key"]: row for row in naive.fold_all(filled.streams, now)}
    found = {row["conversion_key"]: row for row in as_rows(filled.store.folds(now, since, 0, 1))}
    assert naive.touched(filled.streams, since, now) <= found.keys()
    assert all(everything[key] == row for key, row in found.items())


def test_text_of_any_bytes_goes_through(story):
    name = TextColumn.of([b"\xff\x00'\\ \xc3\xa9"])
    row = {"conversion_key": "odd", **at(1)}
    story.add("purchases", row)
    story.store.execute("TRUNCATE TABLE purchases_log")

    put(
        story.store,
        "purchases",
        batch_of_rows("purchases", [row]).with_columns(conversion_id=name),
        0,
    )
    found = story.store.folds(story.position(), None, NOON, 1)
    assert found.conversion_id[0] == name[0]
