"""Units of dropped files: what is refused, what is remembered, and how an open one ends."""

import json
import os

import pytest

from pipeline.model.settings import EngineSettings
from pipeline.model.words import ParkReason, ParseFor, Reason
from pipeline.rulebook.read import from_texts
from pipeline.run import units as module
from pipeline.run.cases import parse_prefix
from pipeline.run.folder import StateError
from pipeline.run.state import State, now_ns
from pipeline.run.units import Units
from pipeline.store.keys import create_live_keys, load_keys
from tests.forge.texts import write_rows
from tests.run.test_watch import MEMBER, T0, capture, moment, old_rules, people, purchase

SETTINGS = EngineSettings(ParseFor.CONSENTED, (parse_prefix("198.51.100.0/24"),))
RULES = from_texts(old_rules())


class Crash(Exception):
    """The process is no more."""


def quiet():
    """Nothing is asked of the owner."""


class World:
    """A watched folder, its state, and an owner that can be killed and started again."""

    def __init__(self, folder):
        self.drop, self.folder = folder / "drop", folder / "state"
        self.drop.mkdir()
        self.folder.mkdir()
        create_live_keys(self.folder)
        self.state = None
        self.start()

    def start(self, rules=RULES):
        self.state = State(
            self.folder, load_keys(self.folder, False), rules, clickhouse_url="chdb://:memory:"
        )
        self.state.use_last_rulebook()
        self.units = Units(self.drop, self.state, SETTINGS, "tester")

    def serve(self, rules=RULES, poll=quiet):
        """What `run` does before its first look."""
        self.units.complete_open_unit(poll)
        self.state.complete_cuts("tester")
        self.state.use_rulebook(rules, 0)

    def ingest(self, poll=quiet):
        return self.units.ingest_ready(self.units.look(settled=True), poll)

    def crash(self, rules=RULES):
        """Leave what is durable, and start again."""
        self.state.journal.sync()
        self.state.close()
        self.start(rules)

    def column(self, stream, name):
        return [v for b in self.state.journal.read(stream) for v in _values(getattr(b, name))]


def _values(column):
    return column.to_list() if hasattr(column, "to_list") else column.tolist()


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    world.serve()
    yield world
    world.state.close()


def at_the_first(stream, world, work):
    """A poll that does `work` once the unit has written rows of `stream`."""
    done = []

    def poll():
        if world.state.journal.rows(stream) and not done:
            done.append(work())

    return poll


def crash():
    raise Crash


def wrong_columns(folder):
    (folder / "purchases.tsv").write_text("# mirrorpoint purchases v1\nevent_ns\tpartnr\n1\tx\n")


@pytest.mark.slow
def test_a_file_with_a_wrong_column_line_is_left_alone_and_the_others_are_not(world, capsys):
    people(world.drop)
    capture(world.drop, "one.pcap", 100)
    wrong_columns(world.drop)
    assert world.ingest() == 3
    told = capsys.readouterr()
    assert "left alone" in told.err
    assert "partnr" in told.err
    assert world.units.open_unit is None
    assert len(world.column("clicks", "click_id")) == 1
    world.crash()
    world.serve()
    assert world.ingest() == 0
    (click,) = world.column("clicks", "click_id")
    purchase(world.drop, "purchases.tsv", str(click), 1)  # mended, it is read
    assert world.ingest() == 1


def test_a_file_that_cannot_be_opened_is_left_alone(world, capsys, monkeypatch):
    people(world.drop)
    capture(world.drop, "one.pcap", 100)
    opened = module._sha256

    def sha(path):
        if path.name == "one.pcap":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path)

    monkeypatch.setattr(module, "_sha256", sha)
    assert world.ingest() == 2
    assert "one.pcap" in capsys.readouterr().err


def test_links_that_lead_nowhere_or_in_circles_hinder_nobody(world):
    people(world.drop)
    (world.drop / "circle.pcap").symlink_to("circle.pcap")
    (world.drop / "gone.pcap").symlink_to("nowhere.pcap")
    capture(world.drop, "one.pcap", 100)
    assert world.ingest() == 3
    assert len(world.column("clicks", "click_id")) == 1


def test_a_file_whose_rights_were_mended_is_read(world, capsys, monkeypatch):
    people(world.drop)
    capture(world.drop, "one.pcap", 100)
    opened = module._sha256

    def sha(path):
        if path.name == "one.pcap" and not path.stat().st_mode & 0o004:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path)

    monkeypatch.setattr(module, "_sha256", sha)
    (world.drop / "one.pcap").chmod(0o600)
    assert world.ingest() == 2
    assert world.ingest() == 0
    assert capsys.readouterr().err.count("left alone") == 1, "told once"
    (world.drop / "one.pcap").chmod(0o644)
    assert world.ingest() == 1
    assert len(world.column("clicks", "click_id")) == 1


def standing(folder, name, seconds, state):
    row = {"event_ns": moment(seconds), "received_ns": moment(seconds), "login": "wren"}
    write_rows(folder / name, "circle", [row | {"state": state, "terms": "t1"}])


def signs_in(folder, name, seconds, login):
    row = {"event_ns": moment(seconds), "received_ns": moment(seconds), "kind": "start"}
    write_rows(folder / name, "sign-ins", [row | {"login": login, "address": MEMBER}])


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True], ids=["running on", "started again"])
@pytest.mark.parametrize(
    "withdraw",
    [
        lambda folder: standing(folder, "later.tsv", 1000, "left"),
        lambda folder: standing(folder, "later.tsv", 1000, "refused"),
        lambda folder: standing(folder, "later.tsv", 1000, "listed"),
        lambda folder: signs_in(folder, "later.tsv", 1000, "somebody"),
    ],
    ids=["left", "refused", "listed", "address given up"],
)
def test_who_left_in_an_earlier_unit_is_read_no_more(world, withdraw, killed):
    people(world.drop)
    capture(world.drop, "one.pcap", 100)
    world.ingest()
    before = {s: world.state.journal.rows(s) for s in ("decisions", "clicks")}
    assert before == {"decisions": 1, "clicks": 1}
    withdraw(world.drop)
    assert world.ingest() == 1
    if killed:
        world.crash()
        world.serve()
    visits = set(world.column("visits", "visit_id"))
    capture(world.drop, "two.pcap", 90_000)
    assert world.ingest() == 1
    assert {s: world.state.journal.rows(s) for s in before} == before
    assert set(world.column("visits", "visit_id")) == visits
    assert max(world.column("visits", "last_ns")) < T0 + 1000 * 10**9


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True], ids=["running on", "started again"])
def test_who_comes_back_in_a_later_unit_is_read_again(world, killed):
    people(world.drop)
    world.ingest()
    standing(world.drop, "later.tsv", 1000, "left")
    world.ingest()
    standing(world.drop, "again.tsv", 2000, "consented")
    signs_in(world.drop, "in.tsv", 2000, "wren")
    world.ingest()
    if killed:
        world.crash()
        world.serve()
    capture(world.drop, "two.pcap", 90_000)
    world.ingest()
    assert world.state.journal.rows("clicks") == 1


def test_captures_of_a_unit_are_bounded_and_come_in_the_order_of_their_packets(world, monkeypatch):
    monkeypatch.setattr(module, "CAPTURES_MAX", 2)
    people(world.drop)
    for name, start in (("a", 400), ("b", 100), ("c", 300), ("d", 200), ("e", 500)):
        capture(world.drop, f"{name}.pcap", start)
    assert [world.ingest() for _ in range(4)] == [4, 2, 1, 0]
    begun = [json.loads(b) for b in world.column("commands", "body")]
    assert [b["captures"] for b in begun if "captures" in b] == [
        ["b.pcap", "d.pcap"], ["c.pcap", "a.pcap"], ["e.pcap"],
    ]  # fmt: skip
    assert max(world.column("visits", "sessions")) == 5
    assert len(set(world.column("visits", "visit_id"))) == 1


def test_what_is_done_is_not_read_again(world, monkeypatch):
    people(world.drop)
    capture(world.drop, "one.pcap", 100)
    assert world.ingest() == 3
    read = []
    monkeypatch.setattr(module, "_sha256", lambda path: read.append(path.name))
    assert world.units.look(settled=True) == []
    world.crash()
    world.serve()
    assert world.units.look(settled=True) == []
    assert read == []
    os.utime(world.drop / "one.pcap", (1, 1))
    monkeypatch.undo()
    assert [path.name for path in world.units.look(settled=True)] == ["one.pcap"]
    assert world.ingest() == 0, "the content is the same"
    assert world.units.look(settled=True) == []


def test_nothing_of_an_address_lies_open_beside_the_journal(world):
    people(world.drop)
    capture(world.drop, "one.pcap", 100)
    world.ingest()
    snapshot = world.units.hot.load("visits-1")
    address = int.from_bytes(bytes(map(int, MEMBER.split("."))), "big") | 0xFFFF_0000_0000
    assert address in snapshot["enrich.node_lo"].tolist()
    names = sorted(path.name for path in world.units.hot.folder.iterdir())
    assert names == ["visits-1.sealed"]
    for path in world.folder.rglob("*"):
        if path.is_file():
            assert address.to_bytes(8, "little") not in path.read_bytes(), path


def opened(world):
    """A unit that a crash left open after its first visit."""
    people(world.drop)
    world.ingest()
    capture(world.drop, "one.pcap", 100)
    capture(world.drop, "two.pcap", 5000)
    with pytest.raises(Crash):
        world.ingest(at_the_first("visits", world, crash))
    assert world.state.journal.rows("visits") > 0


@pytest.mark.slow
def test_an_open_unit_is_completed_under_the_rules_it_was_begun_with(world):
    """R1, R2, back to R1, a crash inside a unit: it goes on under R1, whatever is asked now."""
    texts = dict(RULES.files)
    texts["partners/acme-shop.toml"] += "\n# later\n"
    other = from_texts(texts)
    world.crash(other)
    world.serve(other)
    world.crash()
    world.serve()
    recorded = world.column("rulebooks", "rulebook_hash")
    assert recorded == [RULES.hash, other.hash, RULES.hash]
    opened(world)
    world.crash(other)
    assert world.state.rulebook.hash == RULES.hash
    world.serve(other)
    assert set(world.column("visits", "rulebook_hash")) == {RULES.hash}
    assert world.column("rulebooks", "rulebook_hash") == [*recorded, other.hash]
    world.crash(other)
    world.serve(other)
    assert len(world.column("rulebooks", "rulebook_hash")) == 4, "the same rules say nothing new"


@pytest.mark.slow
def test_a_cut_made_during_a_unit_outlives_a_crash_of_the_unit(world):
    people(world.drop)
    world.ingest()
    capture(world.drop, "one.pcap", 100)
    capture(world.drop, "two.pcap", 5000)
    made = []

    def job():
        made.append(world.state.make_cut(1, "cut-1", T0, None))
        raise Crash  # before its accrual

    with pytest.raises(Crash):
        world.ingest(at_the_first("visits", world, job))
    world.crash()
    assert not world.state.book.cut_done(1)
    world.serve()
    assert not world.state.journal.resuming
    assert world.state.book.cut_done(1)
    assert [int(cut.number[0]) for cut in world.state.cuts()] == [1]
    world.state.accrue(world.state.make_cut(2, "cut-2", T0 + 1, None), "tester")
    assert world.state.book.cut_done(2)
    assert len(set(world.column("clicks", "click_id"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["identity_shown", "order"])
def test_commands_of_others_may_stand_between_the_orders_of_a_unit(world, kind):
    """Also an order that somebody at a desk places meanwhile, which no input will tell again."""
    people(world.drop)
    world.ingest()
    orders = [
        {"event_ns": moment(n), "received_ns": moment(n), "login": "wren", "ref": f"r{n}"}
        | {"points": "5"}
        for n in (50, 6000)
    ]
    write_rows(world.drop / "orders.tsv", "orders", orders)
    capture(world.drop, "one.pcap", 100)
    capture(world.drop, "two.pcap", 5000)

    def shown():
        world.state.command(kind, "x", {}, "tester", T0)
        raise Crash

    with pytest.raises(Crash):
        world.ingest(at_the_first("commands", world, shown))
    kinds = world.column("commands", "kind")
    assert kinds[-2:] == ["order", kind]
    world.crash()
    world.serve()
    kinds = world.column("commands", "kind")
    assert kinds[-4:] == ["order", kind, "order", "ingest_end"]
    assert [r for r in world.column("commands", "ref") if r in ("r50", "r6000")] == ["r50", "r6000"]


@pytest.mark.slow
def test_all_that_text_files_ask_for_is_found_again(world):
    """Also what is no order, and what is said of members, with somebody's approval in between."""
    people(world.drop)
    world.ingest()
    rows = [
        {"event_ns": moment(n), "received_ns": moment(n), "login": "wren", "ref": f"r{n}"}
        | {"points": "5", "kind": kind}
        for n, kind in ((50, "reserve"), (60, "order"), (6000, "commit"))
    ]
    columns = ("event_ns", "received_ns", "login", "ref", "points", "kind")
    write_rows(world.drop / "orders.tsv", "orders", rows, columns)
    facts = [
        {"event_ns": moment(0), "received_ns": moment(n), "login": "wren", "level": level}
        for n, level in ((55, "gold"), (6100, "silver"))
    ]
    write_rows(world.drop / "members.tsv", "members", facts)
    capture(world.drop, "one.pcap", 100)
    capture(world.drop, "two.pcap", 5000)

    def approved():
        world.state.command("approve", "x", {"request": "y"}, "tester", T0)
        raise Crash

    with pytest.raises(Crash):
        world.ingest(at_the_first("commands", world, approved))
    before = world.column("commands", "kind")
    assert before[-1] == "approve"
    assert {"reserve", "member_facts"} & set(before)
    world.crash()
    world.serve()
    after = world.column("commands", "kind")
    assert after[: len(before)] == before
    wanted = {"reserve": 1, "order": 1, "commit": 1, "approve": 1, "member_facts": 2}
    assert {kind: after.count(kind) for kind in wanted} == wanted
    assert after[-1] == "ingest_end"


@pytest.mark.slow
def test_a_unit_whose_files_are_gone_says_what_to_do_and_can_be_given_up(world, capsys):
    opened(world)
    before = {s: world.state.journal.rows(s) for s in ("visits", "decisions", "clicks")}
    (world.drop / "two.pcap").unlink()
    world.crash()
    with pytest.raises(StateError, match=r"two\.pcap.*--abandon-unit"):
        world.serve()
    world.units.abandon_open_unit()
    world.serve()
    assert "abandoned" in capsys.readouterr().out
    assert {s: world.state.journal.rows(s) for s in before} == before, "nothing is taken back"
    assert world.ingest() == 0, "its captures are not read again"
    capture(world.drop, "three.pcap", 200)
    assert world.ingest() == 1
    first, *_, last = world.column("visits", "visit_id")
    assert first != last, "open visits ended with their last version"
    assert world.state.journal.verify() == []
    world.crash()
    world.serve()
    assert world.units.open_unit is None


@pytest.mark.slow
def test_text_files_of_a_unit_that_was_given_up_are_read_again(world):
    people(world.drop)
    world.ingest()
    row = {"event_ns": moment(900), "received_ns": moment(1000), "partner": "acme-shop"}
    row |= {"conversion_id": "c1", "status": "approved", "amount": "50.00", "message_id": "m1"}
    write_rows(world.drop / "purchases.tsv", "purchases", [row])
    capture(world.drop, "one.pcap", 2000)
    with pytest.raises(Crash):
        world.ingest(at_the_first("purchases", world, crash))
    (world.drop / "one.pcap").unlink()
    world.crash()
    world.units.abandon_open_unit()
    world.serve()
    assert world.ingest() == 1
    assert world.column("purchases", "parked") == [ParkReason.NONE, ParkReason.DUPLICATE]


@pytest.mark.slow
@pytest.mark.parametrize("files", [[], ["one.pcap"]])
def test_a_unit_that_reads_differently_is_refused(world, files):
    opened(world)
    world.crash()
    kept = [[name, sha] for name, sha in world.units.open_unit["files"] if name in files]
    world.units.open_unit["files"] = kept
    with pytest.raises(StateError, match=r"reads differently.*--abandon-unit"):
        world.serve()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True], ids=["running on", "started again"])
def test_packets_that_come_again_decide_nothing_again(world, killed, capsys):
    """Not even under rules by which they would have been decided otherwise."""
    people(world.drop)
    capture(world.drop, "one.pcap", 100)
    world.ingest()
    capture(world.drop, "later.pcap", 90_000)  # time passes: the visit closes
    world.ingest()
    before = told(world)
    assert len(before["decisions"]) == len(before["clicks"]) == 2
    changed = {
        n: t.replace("referral           = true", "referral = false")
        for n, t in old_rules().items()
    }
    if killed:
        world.crash()
    world.serve(from_texts(changed))
    (world.drop / "again.pcap").write_bytes((world.drop / "one.pcap").read_bytes())
    capsys.readouterr()
    assert world.ingest() == 1
    counted = json.loads(capsys.readouterr().out)["score"]
    assert counted == {"skip:visit_again": 1}, "it opened"
    assert told(world) == before
    capture(world.drop, "new.pcap", 95_000)
    world.ingest()
    counted = json.loads(capsys.readouterr().out)["score"]
    assert counted == {"decision:no_referral": 1, "skip:visit_again": 1}, "it closed"
    reasons = world.column("decisions", "reason")
    assert len(reasons) == 3
    assert reasons[2] == Reason.NO_REFERRAL, "the new rules hold for what is new"


def told(world):
    """What the journal says of visits, decisions and clicks."""
    columns = {"visits": "visit_id", "decisions": "decision_id", "clicks": "click_id"}
    return {stream: world.column(stream, name) for stream, name in columns.items()}


@pytest.mark.slow
def test_a_unit_with_repeats_that_was_killed_is_completed(world):
    people(world.drop)
    capture(world.drop, "one.pcap", 100)
    world.ingest()
    capture(world.drop, "later.pcap", 90_000)
    world.ingest()
    before = told(world)
    (world.drop / "again.pcap").write_bytes((world.drop / "one.pcap").read_bytes())
    capture(world.drop, "new.pcap", 95_000)
    asked = []

    def poll():
        if len(told(world)["decisions"]) > len(before["decisions"]):
            asked.append(told(world))
            raise Crash

    with pytest.raises(Crash):
        world.ingest(poll)
    world.crash()
    world.serve()
    assert world.units.open_unit is None
    after = told(world)
    assert after["decisions"] == asked[0]["decisions"]
    assert len(set(after["decisions"])) == len(after["decisions"]) == 3
    assert len(set(after["clicks"])) == len(after["clicks"]) == 3


def test_rows_name_the_unit_that_made_them(world):
    people(world.drop)
    capture(world.drop, "one.pcap", 100)
    world.ingest()
    capture(world.drop, "two.pcap", 90_000)
    world.ingest()
    world.state.make_cut(1, "cut", now_ns(), None)
    world.state.deliver()
    asked = world.state.clickhouse.rows
    for log in ("visits_log", "decisions_log", "clicks_log", "bindings_log", "basis_log"):
        named = f"SELECT DISTINCT job FROM {log} AS l JOIN runs AS r ON r.run_id = l.run_id"
        assert asked(named) == [("ingest",)], log
        strays = f"SELECT count() FROM {log} WHERE run_id NOT IN (SELECT run_id FROM runs)"
        assert asked(strays) == [(0,)], log
    begun = "SELECT command_id FROM commands_log WHERE kind = 'ingest_begin' ORDER BY stream_offset"
    units = "SELECT run_id FROM clicks_log ORDER BY stream_offset"
    assert asked(units) == asked(begun), "each unit made a click"
