"""The bundled day: fresh, made of documentation addresses only, and what its story says it is."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from pathlib import Path

import dpkt
import pytest

from pipeline.model.batches import DecisionBatch, PurchaseBatch, VisitBatch
from pipeline.model.words import Decision, ParkReason, Reason, VisitTrigger
from pipeline.run.cases import load_case
from tests.forge import heads
from tests.forge.clicks import Pass, run_stages
from tests.forge.first_day_traffic import LINE, SEED, SUBSCRIBERS, at, login
from tests.forge.forge_first_day import CUTS, EXPECT, EXPECT_BY, FOLDER, ParseFor, forge


@pytest.fixture(scope="module")
def seen() -> Pass:
    """All files of the day through the engine."""
    case = load_case(FOLDER)
    return run_stages(case.files, SEED, SUBSCRIBERS, ParseFor.LISTED)


def newest(visits: VisitBatch) -> dict[bytes, int]:
    """The last row of each visit."""
    return {visits.visit_id[row].tobytes(): row for row in range(len(visits))}


def test_forging_again_gives_the_same_bytes(tmp_path: Path) -> None:
    forge(tmp_path / "day")
    made = {p.name: p.read_bytes() for p in (tmp_path / "day").iterdir()}
    kept = {p.name: p.read_bytes() for p in FOLDER.iterdir() if p.is_file()}
    assert made.keys() == kept.keys()
    for name, content in made.items():
        assert content == kept[name], f"{name} is stale: python -m tests.forge.forge_first_day"


def test_the_capture_is_small() -> None:
    assert (FOLDER / "input.pcap").stat().st_size <= 64 * 1024


def test_the_case_can_be_loaded() -> None:
    case = load_case(FOLDER)
    assert [c.name for c in case.cuts] == [name for name, *_ in CUTS]
    assert [c.repeat for c in case.cuts if c.repeat] == ["spent", "released"]
    own = [c.now_ns for c in case.cuts if not c.repeat]
    assert len(own) >= 5
    assert own == sorted(own)
    assert case.expect["visits"] == EXPECT["visits"]


def test_visits_and_decisions(seen: Pass) -> None:
    visits, decisions = seen.rows["visits"], seen.rows["decisions"]
    assert isinstance(visits, VisitBatch)
    assert isinstance(decisions, DecisionBatch)
    assert len(newest(visits)) == EXPECT["visits"]
    assert len(decisions) == EXPECT["decisions"]
    decided = [d.tobytes() for d in decisions.visit_id]
    assert sorted(decided) == sorted(newest(visits))
    assert len(seen.rows["clicks"]) == EXPECT["clicks"]
    pairs = zip(decisions.kind.tolist(), decisions.reason.tolist(), strict=True)
    found = Counter(f"{Decision(k).name}/{Reason(r).name}".lower() for k, r in pairs)
    assert found == EXPECT_BY["decisions_by_kind"]


def test_messages_and_what_is_parked(seen: Pass) -> None:
    purchases = seen.rows["purchases"]
    assert isinstance(purchases, PurchaseBatch)
    assert len(purchases) == 40
    parked = purchases.parked[purchases.parked > 0].tolist()
    found = Counter(ParkReason(r).name.lower() for r in parked)
    assert found == EXPECT_BY["parked"]
    good = purchases.take(purchases.parked == 0)
    assert len({k.tobytes() for k in good.conversion_key}) == EXPECT["conversions"]
    assert not [k for k in good.conversion_key if k.tobytes() == bytes(16)]


def test_every_named_click_was_handed_out(seen: Pass) -> None:
    """But one, which nobody handed out."""
    handed = {c.tobytes() for c in seen.rows["clicks"].click_id}
    named = {c.tobytes() for c in seen.rows["purchases"].click_id} - {bytes(16)}
    assert len(named - handed) == 1
    assert handed <= named


def test_an_address_that_passed_on_makes_visits_ambiguous(seen: Pass) -> None:
    visits = seen.rows["visits"]
    assert isinstance(visits, VisitBatch)
    rows = list(newest(visits).values())
    doubtful = {
        (visits.partner.text(row), int(visits.opened_ns[row]))
        for row in rows
        if visits.ambiguous[row]
    }
    assert {name for name, _ in doubtful} == {"bolt-mobile", "corner-books"}
    assert all(
        min(abs(opened - at(t)) for t in ("11:59:50", "15:00:01.500")) < 10**9
        for _, opened in doubtful
    )


def test_nobody_outside_leaves_a_trace(seen: Pass) -> None:
    """No row of an outsider, of carol after she refused, of judy, of heidi before she was bound."""
    visits, times = seen.rows["visits"], {}
    assert isinstance(visits, VisitBatch)
    for row in range(len(visits)):
        times.setdefault(visits.subscriber_id[row].tobytes(), []).append(int(visits.first_ns[row]))
    judy = seen.engine.directory.subscriber_of(login("judy"))
    assert seen.engine.directory.subscriber_ids[judy].tobytes() not in times
    assert max(times[seen.subscriber(login("carol"))]) < at("11:00")
    assert min(times[seen.subscriber(login("heidi"))]) > at("09:30")
    for name in ("oscar", "gina", "mallory"):
        assert seen.engine.directory.subscriber_of(login(name)) < 0
    bindings = seen.rows["bindings"]
    for name in ("oscar", "gina", "judy", "mallory"):
        assert login(name) not in bindings.login.to_list()


def test_what_was_not_read_is_counted(seen: Pass) -> None:
    skipped = seen.tally.starting("skip")
    for word in ("outside", "unbound", "not_subscriber", "name_of_nobody", "outsider_sign_in"):
        assert skipped.get(word), word
    assert seen.tally.starting("fault") == EXPECT_BY["faults"]


def test_versions_of_a_visit_tell_what_happened(seen: Pass) -> None:
    triggers = set(seen.rows["visits"].trigger.tolist())
    assert triggers >= {VisitTrigger.OPENED, VisitTrigger.DOCUMENT, VisitTrigger.CLOSED}
    assert VisitTrigger.MARKED in triggers


def test_the_capture_shows_what_the_story_needs() -> None:
    """Cookies and outsiders are in the capture, so that their absence elsewhere means something."""
    raw = (FOLDER / "input.pcap").read_bytes()
    assert raw.count(heads.COOKIE.encode()) > 10
    assert b"canary-outsider" in raw
    assert b"canary-body" in raw
    with open(FOLDER / "input.pcap", "rb") as file:
        kinds = Counter(dpkt.ethernet.Ethernet(frame).type for _, frame in dpkt.pcap.Reader(file))
    assert kinds[dpkt.ethernet.ETH_TYPE_IP6] > 20
    assert kinds[dpkt.ethernet.ETH_TYPE_ARP] == 1
    assert b"\x81\x00" in raw
    assert b"\x88\xa8" in raw


def test_the_case_says_what_was_counted_by_hand() -> None:
    expect = tomllib.loads((FOLDER / "case.toml").read_text())["expect"]
    assert expect == json.loads(json.dumps(EXPECT | EXPECT_BY))
    assert set(LINE) > {"ann", "bob", "carol", "dave", "frank", "heidi"}
