"""Stories of visits: late sessions, addresses that change hands, trackers, marks, growth."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest

from pipeline.enrich.state_kernels import COUNT_OPEN, HELD_NODES, HELD_PASSES
from pipeline.enrich.visits import Limits
from pipeline.model.columns import concat, id_words
from pipeline.model.identifiers import digest, words_of
from pipeline.model.words import Arrival, Protocol, VisitTrigger
from pipeline.rulebook.read import from_texts, load
from tests.enrich.stories import (
    KEYS,
    World,
    as_dicts,
    http,
    run,
    same,
    session_batch,
    times,
    tls,
    v4,
    v6,
)  # fmt: skip
from tests.naive.rowhash import siphash
from tests.naive.visits import FOREVER, Fact, Policy, Session

POLICY = Policy(gap=100, lateness=20, guard=5, window=50)
ANN = (*v4(1), 128)
HOME = [Fact(ANN, 0, 1, 1), Fact((*v4(2), 128), 1, 1, 1)]
OPENED, DOCUMENT, MARKED, PAUSED, CLOSED = (int(t) for t in VisitTrigger)


def story(*sessions: Session, facts: list[Fact] = HOME) -> list[dict]:
    batch = run(POLICY, list(facts), list(sessions), [])
    return as_dicts(batch, World(POLICY).directory)


def triggers(rows: list[dict], visit: int = 0) -> list[int]:
    return [row["trigger"] for row in rows if row["visit"] == visit]


def tracker(first_ns: int, **more) -> Session:
    return tls(first_ns, owner=("tracker", "affiliate"), **more)


def test_a_visit_opens_gets_its_document_and_closes():
    rows = story(tls(1000), http(1010), http(1020))
    assert triggers(rows) == [OPENED, DOCUMENT, CLOSED]
    assert [row["documents"] for row in rows] == [0, 1, 2]
    assert rows[1]["document_ns"] == rows[2]["document_ns"] == 1010
    assert (rows[2]["first_ns"], rows[2]["last_ns"], rows[2]["sessions"]) == (1000, 1020, 3)


def test_a_document_that_opens_needs_no_second_version():
    assert triggers(story(http(1000), http(1010))) == [OPENED, CLOSED]


def test_gaps_under_the_limit_are_one_visit():
    assert {row["visit"] for row in story(tls(1000), tls(1099))} == {0}
    assert {row["visit"] for row in story(tls(1000), tls(1100))} == {0, 1}


def test_partners_and_subscribers_have_visits_of_their_own():
    rows = story(
        tls(1000),
        tls(1001, owner=("partner", "bolt-mobile")),
        tls(1002, subscriber=1, address=v4(2)),
    )
    assert {(r["subscriber"], r["partner"]) for r in rows} == {
        (0, "acme-shop"),
        (0, "bolt-mobile"),
        (1, "acme-shop"),
    }


def test_a_visit_closes_after_gap_and_lateness_and_not_before():
    world = World(POLICY)
    world.facts(HOME)
    world.block([tls(1000)])
    assert len(world.enrich.advance(1120, world.tally)) == 0
    assert world.enrich.advance(1121, world.tally).trigger.tolist() == [CLOSED]


def test_a_late_earlier_session_joins_and_renames_nothing():
    rows = story(tls(1000), tls(950, watermark_ns=1010), tls(1020))
    assert {row["visit"] for row in rows} == {0}
    assert rows[-1]["opened_ns"] == 1000
    assert (rows[-1]["first_ns"], rows[-1]["packet"]) == (950, 1000)


def test_a_bridge_joins_the_earlier_visit_and_both_stay():
    rows = story(tls(1000), tls(1110), tls(1055, watermark_ns=1115), tls(1120))
    last = {row["visit"]: row for row in rows}
    assert len(last) == 2
    assert (last[0]["first_ns"], last[0]["last_ns"], last[0]["sessions"]) == (1000, 1120, 3)
    assert (last[1]["first_ns"], last[1]["sessions"]) == (1110, 1)


def test_what_comes_after_the_close_opens_anew():
    rows = story(tls(1000), tls(1500, owner=None), tls(1010, watermark_ns=1500))
    assert len({row["visit"] for row in rows}) == 2


def test_visits_close_in_the_order_of_their_deadlines_then_of_their_opening():
    shops = [("partner", "acme-shop"), ("partner", "bolt-mobile")]
    rows = story(
        tls(1000, owner=shops[1]), tls(1000, owner=shops[0]), tls(1001, subscriber=1, address=v4(2))
    )
    assert [r["visit"] for r in rows if r["trigger"] == CLOSED] == [0, 1, 2]
    rows = story(tls(1000, owner=shops[1]), tls(1001, owner=shops[0]), tls(1002, owner=shops[1]))
    assert [r["visit"] for r in rows if r["trigger"] == CLOSED] == [1, 0]


def test_the_way_of_arrival():
    assert story(tls(1000))[0]["arrival"] == Arrival.UNSEEN
    assert story(http(1000))[0]["arrival"] == Arrival.DIRECT
    assert story(http(1000, referred=True))[0]["arrival"] == Arrival.REFERRED
    assert story(http(1000, mark="awc", referred=True))[0]["arrival"] == Arrival.AFFILIATE
    rows = story(tls(1000), http(1001, referred=True), http(1002))
    assert [row["arrival"] for row in rows] == [Arrival.UNSEEN, Arrival.REFERRED, Arrival.REFERRED]


def test_a_mark_that_shows_later_marks_the_visit_once():
    rows = story(http(1000), http(1010, mark="awc"), http(1020, mark="cjevent"))
    assert triggers(rows) == [OPENED, MARKED, CLOSED]
    assert [row["mark"] for row in rows] == ["", "awc", "awc"]
    assert rows[-1]["arrival"] == Arrival.AFFILIATE


def test_a_mark_in_an_encrypted_target_is_not_looked_for():
    batch = session_batch([tls(1000)]).with_columns(
        target=session_batch([http(1, mark="awc")]).target
    )
    world = World(POLICY)
    assert world.enrich.push(batch, world.tally).mark.to_list() == [""]


def test_a_tracker_shortly_before_belongs_to_the_visit():
    assert story(tracker(960), http(1000))[0]["tracker"] == (960, "affiliate")
    assert story(tracker(949), http(1000))[0]["tracker"] == (0, "")
    assert story(tracker(960), tracker(970), http(1000))[0]["tracker"] == (970, "affiliate")
    assert story(tracker(960, subscriber=1), http(1000))[0]["tracker"] == (0, "")


def test_a_tracker_during_the_visit_did_not_bring_it():
    rows = story(http(1000), tracker(1010), http(1020))
    assert triggers(rows) == [OPENED, CLOSED]
    assert rows[-1]["tracker"] == (0, "")


def test_a_tracker_seen_late_marks_the_open_visit():
    rows = story(http(1000), tracker(990, watermark_ns=1001), tracker(995, watermark_ns=1002))
    assert triggers(rows) == [OPENED, MARKED, CLOSED]
    assert [row["tracker"][0] for row in rows] == [0, 990, 995]


def test_passes_too_old_to_matter_are_forgotten():
    world = World(POLICY)
    world.block([tracker(1000 + n) for n in range(10)])
    assert world.enrich._state.counts[HELD_PASSES] == 10
    world.block([tracker(1100)])
    assert world.enrich._state.counts[HELD_PASSES] == 1


def passes_to_another(event_ns: int, received_ns: int) -> list[Fact]:
    return [*HOME, Fact(ANN, 1, event_ns, received_ns)]


def test_an_address_that_passes_to_a_member_within_the_guard_time():
    assert story(tls(1000), facts=passes_to_another(1005, 1005))[-1]["ambiguous"]
    assert not story(tls(1000), facts=passes_to_another(1006, 1006))[-1]["ambiguous"]
    assert story(tls(1000), facts=passes_to_another(995, 995))[0]["ambiguous"]


def test_an_address_that_passes_to_an_outsider_within_the_guard_time():
    end = Fact(ANN, -1, 1004, 1010)
    rows = story(tls(1000), tls(1020), facts=[*HOME, end])
    assert triggers(rows) == [OPENED, MARKED, CLOSED]
    assert [row["ambiguous"] for row in rows] == [False, True, True]


def test_a_fact_known_late_about_what_was_before():
    """The address was another's since long before: no guard time is needed."""
    rows = story(tls(1000), facts=[*HOME, Fact(ANN, 1, 500, 1050)])
    assert triggers(rows) == [OPENED, MARKED, CLOSED]


def test_a_fact_about_what_came_long_after_says_nothing():
    rows = story(tls(1000), facts=[*HOME, Fact(ANN, -1, 1050, 1050)])
    assert not rows[-1]["ambiguous"]
    rows = story(tls(1000), tls(1060), facts=[*HOME, Fact(ANN, -1, 1050, 1070)])
    assert triggers(rows) == [OPENED, MARKED, CLOSED]


def test_a_name_that_cannot_be_relied_upon_makes_its_visit_ambiguous():
    rows = story(tls(1000), tls(1001, unreliable=True), tls(1002))
    assert [(row["trigger"], row["ambiguous"]) for row in rows] == [
        (VisitTrigger.OPENED, False),
        (VisitTrigger.MARKED, True),
        (VisitTrigger.CLOSED, True),
    ]


@pytest.mark.parametrize("owner", [None, ("tracker", "affiliate")])
def test_whatever_a_flow_named_first_is_in_doubt_when_its_second_name_is(owner):
    """Whoever the second name is of; but nothing that another flow opened."""
    opened = tls(1000, flow=5), tls(1001, owner=("partner", "bolt-mobile"), flow=6)
    rows = story(*opened, tls(1002, owner=owner, flow=5, unreliable=True), tls(1003))
    assert [(row["trigger"], row["visit"]) for row in rows[:3]] == [
        (VisitTrigger.OPENED, 0), (VisitTrigger.OPENED, 1), (VisitTrigger.MARKED, 0),
    ]  # fmt: skip
    assert [row["ambiguous"] for row in rows[-2:]] == [False, True]  # closed in this order
    rows = story(*opened, tls(1002, owner=owner, flow=5))
    assert MARKED not in triggers(rows)
    assert not any(row["ambiguous"] for row in rows)


def test_a_document_of_a_doubtful_flow_is_in_doubt():
    rows = story(
        tls(1000, flow=5),
        tls(1001, protocol=Protocol.HTTP, document=True, flow=6),
        tls(1002, owner=None, protocol=Protocol.HTTP, flow=6, unreliable=True),
    )
    assert triggers(rows) == [OPENED, VisitTrigger.DOCUMENT, MARKED, CLOSED]


def test_ones_own_binding_makes_nothing_ambiguous():
    assert not story(tls(1000), facts=[*HOME, Fact(ANN, 0, 1001, 1001)])[-1]["ambiguous"]


def test_a_fact_marks_every_session_of_a_prefix():
    home = [Fact((v6(1)[0], 0, 64), 0, 1, 1)]
    sessions = [
        tls(1000, address=v6(1, 5)),
        tls(1001, address=v6(1, 9), owner=("partner", "bolt-mobile")),
    ]
    wide = Fact((0x20010DB8 << 32, 0, 56), -1, 1002, 1010)
    rows = story(*sessions, facts=[*home, wide])
    assert [r["visit"] for r in rows if r["trigger"] == MARKED] == [0, 1]
    narrow = Fact((*v6(1, 9), 128), -1, 1002, 1010)
    rows = story(*sessions, facts=[*home, narrow])
    assert [r["visit"] for r in rows if r["trigger"] == MARKED] == [1]


def test_facts_count_when_they_were_received_not_when_they_were_pushed():
    """One that is received between a deadline and the next session comes after the close."""
    late = Fact(ANN, -1, 1001, 1130)
    assert triggers(story(tls(1000), tls(1500), facts=[*HOME, late])) == [OPENED, CLOSED]
    early = Fact(ANN, -1, 1001, 1120)
    assert triggers(story(tls(1000), tls(1500), facts=[*HOME, early])) == [OPENED, MARKED, CLOSED]


def test_a_pause_writes_what_changed_and_only_that():
    world = World(POLICY)
    world.facts(HOME)
    world.block([tls(1000), tls(1001, owner=("partner", "bolt-mobile")), tls(1002)])
    paused = world.enrich.pause(world.tally)
    assert (paused.trigger.tolist(), paused.sessions.tolist()) == ([PAUSED], [2])
    assert len(world.enrich.pause(world.tally)) == 0
    closed = world.enrich.advance(FOREVER, world.tally)
    assert closed.version.tolist() == [2, 3]


def test_ids_come_from_the_session_that_opened():
    world = World(POLICY)
    visit = world.enrich.push(session_batch([tls(1000)]), world.tally)
    key = words_of(KEYS.visit)
    words = np.concatenate(
        [
            id_words(visit.flow_id)[0],
            id_words(visit.subscriber_id)[0],
            np.frombuffer(digest(KEYS.visit, "partner", "acme-shop"), np.uint64),
            [np.uint64(1000)],
        ]
    )
    assert visit.visit_id.tobytes() == siphash(key.tobytes(), words.tobytes())


def test_rows_carry_where_they_come_from():
    world = World(POLICY)
    visit = world.enrich.push(session_batch([tls(1000)]), world.tally)
    partner = world.rulebook.partner("acme-shop")
    assert visit.rule_version.tobytes() == partner.version
    assert visit.rulebook_hash.tobytes() == world.rulebook.hash
    assert visit.subscriber_id.tobytes() == world.directory.subscriber_ids[:1].tobytes()
    assert (visit.source_id.tolist(), visit.packet_number.tolist()) == ([7], [1000])
    assert (visit.server_hi.tolist(), visit.server_lo.tolist()) == ([1000], [2**64 - 1])
    assert visit.server_port.tolist() == [443]
    assert int.from_bytes(visit.flow_id.tobytes(), "little") == 1000


def test_every_session_is_accounted_for():
    world = World(POLICY)
    world.block(
        [tls(1000), tls(1001), tls(1002, owner=None), tracker(1003), tls(1004, subscriber=-1)]
    )
    assert world.tally.as_dict()["enrich"] == {
        "session": 5,
        "visit": 1,
        "skip:not_opened": 1,
        "skip:name_of_nobody": 1,
        "skip:tracker": 1,
        "skip:unbound": 1,
        "version:opened": 1,
    }


def test_a_name_behind_which_others_hide_is_nobodys():
    world = World(POLICY)
    world.block([tls(1000, hidden=True), tls(1001, hidden=True, owner=None), tls(1002)])
    assert world.tally.as_dict()["enrich"] == {
        "session": 3,
        "visit": 1,
        "skip:name_hidden": 2,
        "version:opened": 1,
    }


def test_a_weak_name_is_nobodys_however_it_is_called():
    world = World(POLICY)
    world.block([tls(1000, weak=True), tls(1001), tls(1002, weak=True, hidden=True)])
    counts = world.tally.as_dict()["enrich"]
    assert (counts["session"], counts["visit"], counts["skip:name_weak"]) == (3, 1, 2)
    assert "skip:name_hidden" not in counts


def test_drafts_are_nobody_and_paused_partners_are_seen():
    texts = dict(load().files)
    name = "partners/delta-travel.toml"
    draft = texts[name].replace('status  = "live"', 'status  = "draft"')
    for text, visits in ((draft, 0), (draft.replace("draft", "paused"), 1)):
        world = World(POLICY, rulebook=from_texts(texts | {name: text}))
        world.block([tls(1000, owner=("draft", "delta-travel"))])
        assert world.tally.of("visit") == visits
        assert world.tally.of("skip:partner_not_live") == 1 - visits


def test_no_name_is_left_behind():
    """Nothing reachable from the stage or its output holds a host, a target or a referer."""
    world = World(POLICY)
    batch = session_batch([http(1000), http(1001, owner=None), tracker(1002)])
    texts = ["canary-host.acme.example", "canary-nobody.test", "canary-track.trk.example"]
    batch = batch.with_columns(
        host=type(batch.host).of(texts),
        target=type(batch.host).of(f"/canary-target-{i}?awc=canary-value" for i in range(3)),
        referer=type(batch.host).of(f"http://canary-referer-{i}.test/" for i in range(3)),
    )
    out = world.enrich.push(batch, world.tally)
    del batch
    assert out.mark.to_list() == ["awc"]
    waiting, seen = [world.enrich, world.tally, out], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, type) or type(one).__name__ == "module":
            continue
        seen.add(id(one))
        raw = one.tobytes() if isinstance(one, np.ndarray) else one
        raw = raw.encode() if isinstance(raw, str) else raw
        assert not (isinstance(raw, bytes) and b"canary" in raw), raw
        waiting.extend(r for r in gc.get_referents(one) if not callable(r))


def test_state_is_given_back():
    world = World(POLICY)
    world.facts(HOME)
    for turn in range(50):
        start = 10_000 * (turn + 1)
        world.block([tls(start + n, packet=turn * 10 + n) for n in range(5)])
        world.block([tracker(start + 20 + n) for n in range(5)])
    counts = world.enrich._state.counts
    assert (counts[COUNT_OPEN], counts[HELD_NODES], counts[HELD_PASSES]) == (1, 5, 5)
    assert len(world.enrich._state.arrays.rows) <= 8
    assert len(world.enrich._state.arrays.node_ns) <= 16


def test_one_fact_may_mark_more_visits_than_there_is_room_for():
    world = World(POLICY, limits=replace(Limits(), versions=1))
    world.facts(HOME)
    shops = [("partner", "acme-shop"), ("partner", "bolt-mobile")]
    world.block([tls(1000 + n, owner=shops[n % 2], packet=n) for n in range(4)])
    world.facts([Fact(ANN, -1, 1001, 1010)])
    rows = world.enrich.advance(1010, world.tally)
    assert rows.trigger.tolist() == [MARKED, MARKED]
    assert rows.partner.to_list() == ["acme-shop", "bolt-mobile"]


@pytest.mark.parametrize("limits", [Limits(), replace(Limits(), versions=1)])
def test_a_snapshot_goes_on_as_if_nothing_had_happened(limits):
    sessions = [
        http(1000), tracker(1001), tls(1005, subscriber=1, address=v4(2)), tls(1050), tls(1200),
    ]  # fmt: skip
    facts = [*HOME, Fact(ANN, -1, 1004, 1060), Fact(ANN, 0, 1100, 1100)]
    whole = run(POLICY, facts, sessions, [], limits=limits)
    for cut in range(len(sessions) + 1):
        assert same(run(POLICY, facts, sessions, [cut], restart=True, limits=limits), whole)


def test_a_snapshot_is_plain_arrays_of_what_is_in_use():
    world = World(POLICY)
    world.facts(HOME)
    world.block([http(1000), tracker(1001)])
    snapshot = world.enrich.snapshot()
    assert all(isinstance(value, np.ndarray) for value in snapshot.values())
    assert not any(value.dtype == object for value in snapshot.values())
    assert (len(snapshot["rows"]), len(snapshot["node_ns"]), len(snapshot["pass_ns"])) == (1, 1, 1)
    world.block([http(1010)])
    assert len(snapshot["node_ns"]) == 1, "a snapshot does not move"


def test_quic_and_http_and_tls_are_counted_apart():
    rows = story(
        tls(1000), tls(1001, protocol=Protocol.QUIC), http(1002, document=False), http(1003)
    )
    assert (rows[-1]["tls"], rows[-1]["quic"], rows[-1]["http"]) == (1, 1, 2)


def test_nothing_in_gives_nothing_out():
    world = World(POLICY)
    world.block([])
    assert len(concat([*world.out, world.finish()])) == 0


BOLT = ("partner", "bolt-mobile")


def other_rules(edit):
    """The shipped rules with other files."""
    texts = dict(load().files)
    edit(texts)
    return times(from_texts(texts), POLICY)


def restored(world, rulebook):
    """The world goes on from a snapshot under another rulebook."""
    world.rulebook = rulebook
    world.restart()
    return world


def half_way():
    world = World(POLICY)
    world.facts(HOME)
    world.block([tracker(999), tls(1000, owner=BOLT), tls(1001), tls(1002, subscriber=1)])
    return world


def names_of(batch):
    return list(zip(batch.partner.to_list(), batch.tracker.to_list(), strict=True))


def test_an_open_visit_keeps_its_partner_where_another_sorts_before_it():
    def edit(texts):
        acme = texts["partners/acme-shop.toml"]
        texts["partners/aaa-shop.toml"] = acme.replace("acme", "aaa")

    rules = other_rules(edit)
    assert rules.partners[0].id == "aaa-shop"
    world = restored(half_way(), rules)
    world.block([tls(1010, owner=BOLT)])
    closed = world.finish()
    whole = half_way()
    whole.block([tls(1010, owner=BOLT)])
    expected = whole.finish()
    assert names_of(closed) == names_of(expected)
    assert closed.visit_id.tolist() == expected.visit_id.tolist()
    assert closed.sessions.tolist() == expected.sessions.tolist()
    assert closed.partner.to_list().count("bolt-mobile") == 2  # opened, closed


def test_visits_of_a_partner_that_is_gone_are_forgotten_and_all_others_go_on():
    rules = other_rules(lambda texts: texts.pop("partners/acme-shop.toml"))
    world = restored(half_way(), rules)
    assert world.enrich._state.counts[COUNT_OPEN] == 1
    assert world.enrich._state.counts[HELD_NODES] == 1
    before = len(world.out[0])
    world.block([tls(1010, owner=BOLT), tls(1011, owner=BOLT, subscriber=1, address=v4(2))])
    rows = world.finish().slice(before, 100)
    assert set(rows.partner.to_list()) == {"bolt-mobile"}
    assert rows.trigger.tolist() == [OPENED, CLOSED, CLOSED]
    assert sorted(rows.sessions.tolist()) == [1, 1, 2]
    assert world.enrich._state.counts[[COUNT_OPEN, HELD_NODES]].tolist() == [0, 0]


def test_a_tracker_that_the_rules_no_longer_name_keeps_its_name():
    def edit(texts):
        old = texts.pop("trackers/affiliate.toml")
        texts["trackers/cashback.toml"] = old.replace('"affiliate"', '"cashback"')

    world = restored(half_way(), other_rules(edit))
    world.block([http(1010)])
    assert {t for p, t in names_of(world.finish()) if p == "acme-shop"} == {"affiliate", ""}


def test_deadlines_follow_the_policy_of_now():
    world = half_way()
    world.policy = replace(POLICY, gap=10)
    restored(world, times(load(), world.policy))
    assert len(world.enrich.advance(1020, world.tally)) == 0
    closed = world.enrich.advance(1100, world.tally)
    assert closed.trigger.tolist() == [CLOSED, CLOSED, CLOSED]
    assert closed.partner.to_list() == ["bolt-mobile", "acme-shop", "acme-shop"]
