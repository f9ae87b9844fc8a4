"""A live folder: units of dropped files, one owner, crashes, and questions meanwhile."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.rulebook.read import load
from pipeline.run.actors import own_actor
from tests.commands import asked, done, mirrorpoint
from tests.forge.heads import document
from tests.forge.texts import write_rows
from tests.forge.wire import Wire

pytestmark = pytest.mark.slow  # a process, or several, for each test

T0 = 1_583_020_800_000_000_000  # 2020-03-01: long ago by any clock, so that no hold lies ahead
SECOND = 1_000_000_000
MEMBER, SHOP = "198.51.100.77", "203.0.113.10"
WORDS = ("--parse-for", "consented", "--subscribers", "198.51.100.0/24")


def moment(seconds):
    return str(T0 + int(seconds * SECOND))


def people(folder):
    start = {"event_ns": moment(0), "received_ns": moment(0)}
    row = start | {"login": "wren", "state": "consented", "terms": "t1"}
    write_rows(folder / "circle.tsv", "circle", [row])
    row = start | {"kind": "start", "login": "wren", "address": MEMBER}
    write_rows(folder / "signins.tsv", "sign-ins", [row])


def capture(folder, name, start):
    wire = Wire(name)
    wire.http(T0 + start * SECOND, MEMBER, SHOP, document("acme.example"))
    path = folder / f".{name}"
    wire.write(path)
    path.rename(folder / name)


def purchase(folder, name, click, number):
    row = {"event_ns": moment(900), "received_ns": moment(1000), "partner": "acme-shop"}
    row |= {"conversion_id": f"c{number}", "order_ref": f"o{number}", "click_ref": click}
    write_rows(folder / name, "purchases", [row | {"status": "approved", "amount": "50.00"}])


def old_rules():
    """The shipped rules, in force since long before T0."""
    return {name: text.replace("2026-01-01", "2020-01-01") for name, text in load().files.items()}


@pytest.fixture
def drop(tmp_path):
    for name, text in old_rules().items():
        path = tmp_path / "rules" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    folder = tmp_path / "drop"
    folder.mkdir()
    return folder


def once(drop, state, env=None):
    return mirrorpoint(*running(drop, state), "--once", env=env)


def running(drop, state):
    return ["run", "--watch", drop, "--state", state, "--rules", drop.parent / "rules", *WORDS]


def test_prefixes_are_told_as_people_write_them(drop, tmp_path):
    words = ("--subscribers", "2001:db8:77::/48", "--once")
    result = mirrorpoint(*running(drop, tmp_path / "state"), *words)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout.splitlines()[0])
    assert told["subscribers"] == ["198.51.100.0/24", "2001:db8:77::/48"]
    query = "SELECT JSONExtractRaw(body, 'subscribers') AS kept FROM commands_log"
    (kept,) = asked(tmp_path / "state", f"{query} WHERE kind = 'settings'")
    assert json.loads(kept["kept"])[0] == [0, 0xFFFF_C633_6400, 120]  # as the gate compares them


def test_units_continue_where_the_last_one_ended(drop, tmp_path):
    state = tmp_path / "state"
    people(drop)
    assert once(drop, state).returncode == 0
    capture(drop, "one.pcap", 100)
    assert once(drop, state).returncode == 0
    capture(drop, "two.pcap", 400)
    result = once(drop, state)
    assert result.returncode == 0, result.stderr
    visits = asked(state, "SELECT visit_id, sessions, documents FROM visits")
    assert [(v["sessions"], v["documents"]) for v in visits] == [(2, 2)]
    clicks = asked(state, "SELECT click_id, delivery FROM clicks")
    assert [click["delivery"] for click in clicks] == ["unproven"]  # nobody has bought yet
    again = once(drop, state)
    assert "one.pcap" not in again.stdout.split("\n", 1)[1]
    purchase(drop, "purchases.tsv", clicks[0]["click_id"], 1)
    assert once(drop, state).returncode == 0
    told = json.loads(
        done("job", "accrue", "--state", state, "--now", "2020-06-01T00:00:00Z", "--json")
    )
    assert told["results"] == {"ok": 1}
    proven = asked(state, "SELECT delivery, toTypeName(delivery) AS type FROM clicks")
    assert [row["delivery"] for row in proven] == ["proven"]
    assert proven[0]["type"].startswith("Enum8(")
    rows = asked(state, "SELECT state, points FROM conversions")
    assert rows == [{"state": "available", "points": 250}]
    back = mirrorpoint("job", "accrue", "--state", state, "--now", "2020-05-01T00:00:00Z")
    assert back.returncode == 2
    assert "never goes back" in back.stderr
    ahead = mirrorpoint("job", "accrue", "--state", state, "--now", "2262-01-01T00:00:00Z")
    assert ahead.returncode == 2
    assert "ahead of the clock" in ahead.stderr
    assert asked(state, "SELECT count() AS n FROM cuts") == [{"n": 1}]
    done("job", "audit", "--state", state)


def test_starting_with_other_rules_changes_nothing(drop, tmp_path):
    """Rules are published by two persons; who starts the engine is one."""
    state, shop = tmp_path / "state", drop.parent / "rules" / "partners" / "acme-shop.toml"
    people(drop)
    assert once(drop, state).returncode == 0
    text = shop.read_text()
    shop.write_text(text + "# another\n")
    capture(drop, "one.pcap", 100)
    result = once(drop, state)
    assert result.returncode == 2
    assert "mirrorpoint rules publish" in result.stderr
    assert "Traceback" not in result.stderr
    assert asked(state, "SELECT count() AS n FROM visits") == [{"n": 0}]
    words = running(drop, state)
    del words[words.index("--rules") : words.index("--rules") + 2]
    result = mirrorpoint(*words, "--once")
    assert result.returncode == 0, result.stderr
    assert asked(state, "SELECT count() AS n FROM visits") == [{"n": 1}]
    (rules,) = asked(state, "SELECT DISTINCT rulebook_hash FROM visits")
    assert asked(state, "SELECT rulebook_hash FROM rulebooks_log") == [rules]


def test_bad_files_are_left_alone_and_named(drop, tmp_path):
    state = tmp_path / "state"
    people(drop)
    (drop / "notes.txt").write_text("hello")
    (drop / "half.pcap.part").write_bytes(b"\xd4\xc3\xb2\xa1")
    result = once(drop, state)
    assert result.returncode == 0
    assert "notes.txt" in result.stderr
    assert "half.pcap.part" not in result.stderr + result.stdout
    assert "Traceback" not in result.stderr


def test_a_test_state_is_refused(drop, tmp_path):
    people(drop)
    capture(drop, "one.pcap", 100)
    state = tmp_path / "state"
    done("replay", drop, "--state", state, "--parse-for", "listed")
    result = once(drop, state)
    assert result.returncode == 2
    assert "test keys" in result.stderr


@pytest.mark.parametrize(
    "point", ["journal.half_frame:2", "ingest.after_packets", "journal.after_seal:3", "step:12"]
)
def test_a_unit_that_was_killed_is_completed(drop, tmp_path, point):
    state = tmp_path / "state"
    people(drop)
    assert once(drop, state).returncode == 0
    capture(drop, "one.pcap", 100)
    killed = once(drop, state, env={"MIRRORPOINT_CRASH": point})
    assert killed.returncode == -signal.SIGKILL
    result = once(drop, state)
    assert result.returncode == 0, result.stderr
    assert asked(state, "SELECT count() AS n FROM clicks") == [{"n": 1}]
    assert asked(state, "SELECT sessions FROM visits") == [{"sessions": 1}]
    done("job", "audit", "--state", state)


def test_a_unit_whose_capture_is_gone_is_given_up_on_request(drop, tmp_path):
    state = tmp_path / "state"
    people(drop)
    assert once(drop, state).returncode == 0
    capture(drop, "one.pcap", 100)
    killed = once(drop, state, env={"MIRRORPOINT_CRASH": "ingest.after_packets"})
    assert killed.returncode == -signal.SIGKILL
    (drop / "one.pcap").unlink()
    stuck = once(drop, state)
    assert stuck.returncode == 2
    assert "one.pcap" in stuck.stderr
    assert "--abandon-unit" in stuck.stderr
    freed = mirrorpoint(*running(drop, state), "--once", "--abandon-unit")
    assert freed.returncode == 0, freed.stderr
    capture(drop, "two.pcap", 400)
    assert once(drop, state).returncode == 0
    assert asked(state, "SELECT count() AS n FROM clicks") == [{"n": 1}]
    kinds = asked(state, "SELECT kind FROM commands_log WHERE kind LIKE 'ingest%'"
                         " ORDER BY stream_offset")  # fmt: skip
    words = [row["kind"].removeprefix("ingest_") for row in kinds]
    assert words == ["begin", "end", "begin", "abandoned", "begin", "end"]
    done("job", "audit", "--state", state)


def test_questions_are_answered_while_it_runs(drop, tmp_path):
    state = tmp_path / "state"
    people(drop)
    capture(drop, "one.pcap", 100)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *running(drop, state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        until(lambda: (state / "owner.sock").exists())
        until(lambda: counted(state, "clicks") == 1)
        second = once(drop, state)
        assert second.returncode == 1
        assert str(process.pid) in second.stderr
        (click,) = asked(state, "SELECT click_id FROM clicks")
        purchase(drop, "purchases.tsv", click["click_id"], 1)
        until(lambda: counted(state, "purchases_log") == 1)
        done("job", "accrue", "--state", state, "--now", "2020-06-01T00:00:00Z")
        assert "acme-shop" in done("explain", click["click_id"], "--state", state)
        entries = asked(state, "SELECT entry_id FROM entries")
        assert "one.pcap" in done("explain", entries[0]["entry_id"], "--state", state)
        shown = done("explain", click["click_id"], "--with-identity", "--state", state)
        assert "is login wren" in shown
        assert recorded(state) == [{"asked": click["click_id"], "known": 1, "named": own_actor()}]
        done("job", "audit", "--state", state)
    finally:
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert not (state / "owner.sock").exists()
    assert "watching" in output


def counted(state, table):
    """How many rows a table has; None while the owner cannot tell yet."""
    result = mirrorpoint("sql", "--state", state, "--json", f"SELECT count() AS n FROM {table}")
    assert "Traceback" not in result.stderr
    return None if result.returncode else json.loads(result.stdout)["data"][0]["n"]


def recorded(state):
    """Who was shown a login, as the journal has it."""
    return asked(
        state,
        "SELECT JSONExtractString(body, 'asked') AS asked, actor AS named, subscriber_id IN"
        " (SELECT subscriber_id FROM visits) AS known FROM commands_log"
        " WHERE kind = 'identity_shown' ORDER BY stream_offset",
    )


def until(holds, seconds=120):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return
        time.sleep(0.2)
    raise AssertionError("it did not happen in time")
