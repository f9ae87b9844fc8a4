"""Every entry leads to a packet or an order; every missing award to the link that broke."""

import json
import os
import pwd
import shutil
import subprocess
import sys

import pytest

from tests.commands import FIRST_DAY, asked, done, mirrorpoint, replayed
from tests.need import REPOSITORY

pytestmark = pytest.mark.slow  # a process, or several, for each test


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain") / "state"
    replayed(FIRST_DAY, state=folder)
    return folder


@pytest.fixture(scope="module")
def conversions(state):
    """A conversion for each reason, by the partner's number."""
    rows = asked(state, "SELECT reason, min(conversion_id) AS id FROM conversions GROUP BY reason")
    return {row["reason"]: row["id"] for row in rows}


def chain(state, *words):
    return json.loads(done("explain", *words, "--state", state, "--json"))


def missing(state, order, *words):
    return chain(state, "--missing", "--order", order, *words)


def test_an_entry_leads_to_the_packet(state):
    query = "SELECT entry_id, click_id FROM entries WHERE kind = 'confirm' ORDER BY sequence, leg"
    entries = [row for row in asked(state, query) if set(row["click_id"]) - set("0-")]
    links = chain(state, entries[0]["entry_id"])
    whats = [link["what"] for link in links]
    order = ["entry", "booked", "rule", "conversion", "message", "click", "decision", "visit"]
    firsts = [whats.index(what) for what in [*order, "binding", "basis", "packet"]]
    assert firsts == sorted(firsts)
    packet = links[whats.index("packet")]["facts"]
    assert packet["capture"] == "input.pcap"
    assert int(packet["packet"]) > 0
    assert "rules/partners/" in links[whats.index("rule")]["text"]


def chains(state, ids):
    """What `explain ID --json` prints, for many ids."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.run.explaining", str(state)],
        input="\n".join(ids),
        capture_output=True,
        text=True,
        check=True,
        cwd=REPOSITORY,
    )
    return json.loads(done.stdout)


def test_every_entry_has_a_chain(state):
    entries = asked(state, "SELECT entry_id AS id, transfer_id, cause_kind AS cause FROM entries")
    assert len({row["transfer_id"] for row in entries}) > 10
    assert {row["cause"] for row in entries} == {"conversion", "order"}
    told = chains(state, [row["id"] for row in entries])
    for row in entries:
        links = told[row["id"]]
        whats = [link["what"] for link in links]
        assert whats[:2] == ["in words", "entry"]
        assert "booked" in whats
        if row["cause"] == "order":
            assert whats[-1] == "command", row
            continue
        order = [whats.index(what) for what in ("rule", "message", "visit", "packet")]
        assert order == sorted(order), whats
        packet = links[whats.index("packet")]["facts"]
        assert packet["capture"] == "input.pcap"
        assert int(packet["packet"]) > 0
    first = entries[0]["id"]
    assert told[first] == chain(state, first), "the command says something else"


@pytest.mark.parametrize("view", ["visits", "decisions", "clicks", "conversions", "runs", "cuts"])
def test_any_id_is_known(state, view):
    (row,) = asked(state, f"SELECT id FROM {view} LIMIT 1")
    assert chain(state, row["id"])


def test_text_fits_a_terminal(state):
    (row,) = asked(state, "SELECT entry_id AS id FROM entries WHERE kind = 'confirm' LIMIT 1")
    text = done("explain", row["id"], "--state", state)
    assert max(map(len, text.splitlines())) <= 80
    assert "sum " in text


def test_an_id_that_nobody_has(state):
    result = mirrorpoint("explain", "00000000-0000-4000-8000-000000000001", "--state", state)
    assert result.returncode == 1
    assert "nothing here has the id" in result.stderr
    result = mirrorpoint("explain", "hello", "--state", state)
    assert result.returncode == 2


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("orphan", "no click of ours"),
        ("declined", "declined"),
        ("stood_down", "another affiliate"),
        ("pending", "has not confirmed"),
        ("outside_window", "attribution window"),
        ("ambiguous", "changed hands"),
        ("wrong_partner", "another partner"),
        ("not_a_member", "not a member"),
        ("no_rule", "no accrual rule of the partner"),
        ("no_points", "less than one point"),
    ],
)
def test_the_first_link_that_broke(state, conversions, reason, words):
    assert reason in conversions, f"the day has no conversion with {reason}"
    last = missing(state, conversions[reason])[-1]
    assert last["what"] == "broken"
    assert words in last["text"]


@pytest.fixture(scope="module")
def evening(tmp_path_factory):
    """The day as it stood at its first cut: what was approved still waits."""
    folder = tmp_path_factory.mktemp("evening")
    case = folder / "case"
    shutil.copytree(FIRST_DAY, case)
    before, first, rest = (case / "case.toml").read_text().partition("[[cut]]")
    assert rest.count("[[cut]]") >= 4
    (case / "case.toml").write_text(before + first + rest.partition("[[cut]]")[0])
    replayed(case, state=folder / "state")
    return folder / "state"


def test_points_that_wait_are_held_until_a_day(evening):
    query = "SELECT reason, toString(release_at) AS at FROM conversions WHERE conversion_id = '{}'"
    (row,) = asked(evening, query.format("AC-1003"))
    assert row["reason"] == "held"
    assert row["at"].startswith("2026-03-15 12:15:00")
    # By the shop's own number, and by the order's.
    for order in ("AC-1003", "AC-R1003"):
        links = missing(evening, order)
        assert links[-1]["what"] == "broken"
        assert "held until 2026-03-15 12:15:00Z" in links[-1]["text"]
        assert {"message", "click", "visit", "packet"} <= {link["what"] for link in links[:-1]}


def test_a_parked_message(state):
    query = "SELECT order_ref FROM purchases_log WHERE parked = 'unknown_currency' LIMIT 1"
    (row,) = asked(state, query)
    last = missing(state, row["order_ref"])[-1]
    assert last["what"] == "broken"
    assert "parked: unknown_currency" in last["text"]


def test_a_message_whose_order_could_not_be_read(state):
    links = missing(state, "AC-R1199")
    assert [link["what"] for link in links] == ["message", "unread", "broken"]
    assert "row 26 of purchases.tsv, parked: malformed" in links[0]["text"]
    assert links[1]["text"].startswith("1 malformed message arrived whose order could not be read")


def test_nothing_is_broken(state, conversions):
    links = missing(state, conversions["awarded"])
    assert links[-1]["what"] == "whole"
    assert "entry" in {link["what"] for link in links}


def test_no_message_at_all(state):
    assert "no message" in missing(state, "no-such-order")[-1]["text"]


def test_who_asks_matters(state):
    links = missing(state, "x", "--address", "203.0.113.250", "--at", "2026-03-01T10:00:00Z")
    assert links[-1]["what"] == "broken"
    assert "no binding" in links[-1]["text"]
    (gone,) = asked(
        state, "SELECT subscriber_id AS id FROM basis_log WHERE state = 'refused' LIMIT 1"
    )
    links = missing(state, "x", "--subscriber", gone["id"])
    assert "not in the parse set" in links[-1]["text"]
    (row,) = asked(
        state,
        "SELECT v.subscriber_id AS id, v.first_at AS at FROM visits v ORDER BY v.first_at LIMIT 1",
    )
    links = missing(state, "x", "--subscriber", row["id"], "--at", row["at"][:19].replace(" ", "T"))
    assert [link["what"] for link in links][:4] == ["basis", "message", "unread", "broken"]
    assert links[-1]["what"] == "visit"


def test_bad_questions_are_told(state):
    for words in (
        ("--missing", "--order", "x", "--address", "203.0.113.250"),
        ("--missing", "--order", "x", "--address", "nonsense", "--at", "2026-03-01T10:00:00Z"),
        ("--missing", "--order", "x", "--subscriber", "nonsense"),
        ("--missing", "--order", "x", "--at", "yesterday"),
    ):
        result = mirrorpoint("explain", *words, "--state", state)
        assert result.returncode == 2, words
        assert "Traceback" not in result.stderr


ID = "00000000-0000-4000-8000-000000000001"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((ID, "--order", "AC-1001"), "--order: only with --missing"),
        ((ID, "--address", "198.51.100.7", "--at", "2026-03-01"), "--address, --at: only with"),
        ((ID, "--missing", "--order", "AC-1001"), "not both"),
        (("--order", "AC-1001"), "give an ID, or --missing"),
    ],
)
def test_no_word_of_a_question_is_ignored(tmp_path, words, told):
    result = mirrorpoint("explain", *words, "--state", tmp_path)
    assert result.returncode == 2
    assert told in result.stderr


def shown(state):
    """How often a login was shown, each time to whoever runs this, by the system's word for it."""
    actor = pwd.getpwuid(os.getuid()).pw_name
    rows = asked(state, "SELECT actor FROM commands_log WHERE kind = 'identity_shown'")
    assert {row["actor"] for row in rows} <= {actor}
    return len(rows)


def test_whose_login_was_shown_to_whom_is_on_record(tmp_path):
    state = tmp_path / "state"
    first = replayed(FIRST_DAY, state=state)
    (row,) = asked(state, "SELECT visit_id, subscriber_id FROM visits LIMIT 1")
    assert "login" not in done("explain", row["visit_id"], "--state", state)
    assert shown(state) == 0
    words = ("explain", row["visit_id"], "--with-identity", "--state", state)
    assert "is login" in done(*words, env={"LOGNAME": "mallory", "USER": "mallory"})
    assert shown(state) == 1
    (command,) = asked(state, "SELECT subscriber_id, actor FROM commands_log"
                              " WHERE kind = 'identity_shown'")  # fmt: skip
    assert command["subscriber_id"] == row["subscriber_id"]
    again = replayed(FIRST_DAY, state=state)
    assert again["ledger_hash"] == first["ledger_hash"]
    assert again["journal_hash"] != first["journal_hash"], "one row more"
    assert "is login" in done("explain", row["visit_id"], "--with-identity", "--state", state)
    assert shown(state) == 2
    done("job", "audit", "--state", state)


def test_a_replay_that_is_not_done_shows_no_login(tmp_path):
    state = tmp_path / "state"
    killed = mirrorpoint(
        "replay", FIRST_DAY, "--state", state, env={"MIRRORPOINT_CRASH": "accrue.before_done"}
    )
    assert killed.returncode < 0
    (row,) = asked(state, "SELECT visit_id FROM visits_log LIMIT 1")
    refused = mirrorpoint("explain", row["visit_id"], "--with-identity", "--state", state)
    assert refused.returncode == 1
    assert "put on record" in refused.stderr
    assert "login" not in refused.stdout
    replayed(FIRST_DAY, state=state)


def test_a_replay_tells_what_orders_came_to(state):
    report = replayed(FIRST_DAY, state=state)
    told = {"exists": 1, "insufficient_points": 1, "ok": 1, "unknown_member": 1}
    assert report["orders"] == told
    shown = done("replay", FIRST_DAY, "--state", state)
    assert "orders of members:\n          1  exists\n" in shown


def test_a_refused_order_says_why(state):
    query = "SELECT ref, any(command_id) AS id FROM commands_log WHERE kind = 'order' GROUP BY ref"
    ids = {row["ref"]: row["id"] for row in asked(state, query)}
    assert [link["facts"]["answer"] for link in chain(state, ids["ticket-1"])] == ["ok", "exists"]
    (unpayable,) = chain(state, ids["ticket-2"])
    assert "refused: there were too few points" in unpayable["text"]
    (nobody,) = chain(state, ids["ticket-3"])
    assert "refused: nobody with points is behind it" in nobody["text"]
