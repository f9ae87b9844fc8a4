"""Questions to a state that nobody owns: the short way says what the long way says, and refuses
what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from pipeline.run.folder import CLOSED, lock_state
from pipeline.store.lock import OwnerLock
from tests.commands import FIRST_DAY, asked, done, hashes, mirrorpoint, replayed
from tests.need import REPOSITORY

pytestmark = pytest.mark.slow  # a process, or several, for each test

# Asks the client in a process of its own; tells the answer and whether the state was opened whole.
ASK = """
import json, sys
from pathlib import Path
from pipeline.run.client import ask
found = ask(Path(sys.argv[1]), json.loads(sys.argv[2])).decode()
print(json.dumps([found, "pipeline.run.state" in sys.modules]))
"""


def ask(state, do, **more):
    request = json.dumps({"do": do, "json": True, **more})
    result = subprocess.run(
        [sys.executable, "-c", ASK, str(state), request],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    text, opened = json.loads(result.stdout)
    return text, opened


def short(state, do, **more):
    assert (state / CLOSED).exists()
    text, opened = ask(state, do, **more)
    assert not opened
    return text


def long(state, do, **more):
    (state / CLOSED).unlink(missing_ok=True)
    text, opened = ask(state, do, **more)
    assert opened
    assert (state / CLOSED).exists()
    return text


def plain(text):
    """An answer without what ClickHouse says about its own work."""
    found = json.loads(text)
    return {k: v for k, v in found.items() if k != "statistics"} if "data" in found else found


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "state"
    replayed(FIRST_DAY, state=folder)
    return folder


@pytest.fixture
def copy(state, tmp_path):
    """A state that may be spoilt, closed whole."""
    shutil.copytree(state, tmp_path / "state", symlinks=True)
    long(tmp_path / "state", "sql", query="SELECT 1")
    return tmp_path / "state"


QUERIES = (
    "SELECT * FROM visits ORDER BY id",
    "SELECT *, event_ns FROM purchases_log ORDER BY stream_offset",
    "SELECT kind, sum(amount) FROM entries GROUP BY ALL ORDER BY ALL",
    "SHOW TABLES",
    "SELECT name, value FROM system.settings WHERE name = 'readonly'",
)


def test_both_ways_answer_sql_alike(state):
    brief = [short(state, "sql", query=query) for query in QUERIES]
    full = [long(state, "sql", query=query) for query in QUERIES]
    assert list(map(plain, brief)) == list(map(plain, full))


def test_both_ways_print_the_same_table(state):
    query = "SELECT partner, count() FROM decisions GROUP BY ALL ORDER BY ALL"
    assert short(state, "sql", query=query, json=False) == long(
        state, "sql", query=query, json=False
    )


def test_both_ways_explain_alike(state):
    ids = {
        view: asked(state, f"SELECT id FROM {view} {where} LIMIT 1")[0]["id"]
        for view, where in {
            "entries": "WHERE kind = 'confirm'",
            "visits": "",
            "conversions": "WHERE reason = 'awarded'",
            "cuts": "",
        }.items()
    }
    (order,) = asked(state, "SELECT conversion_id FROM conversions WHERE reason = 'orphan' LIMIT 1")
    missing = {"missing": True, "order": order["conversion_id"]}
    asks = [{"id": found, "question": {}} for found in ids.values()]
    asks += [{"id": "", "question": missing}]
    brief = [short(state, "explain", **words) for words in asks]
    assert brief == [long(state, "explain", **words) for words in asks]
    rule = [link for link in json.loads(brief[0]) if link["what"] == "rule"]
    assert "rules/partners/" in rule[0]["text"]


@pytest.mark.parametrize(
    "words",
    [
        ("sql", "DROP TABLE visits_log"),
        ("sql", "SELECT * FROM nowhere"),
        ("sql", "SELECT * FROM file('/etc/passwd')"),
        ("explain", "00000000-0000-4000-8000-000000000001"),
        ("explain", "hello"),
    ],
)
def test_both_ways_refuse_alike(state, words):
    assert (state / CLOSED).exists()
    brief = mirrorpoint(*words, "--state", state)
    (state / CLOSED).unlink()
    full = mirrorpoint(*words, "--state", state)
    assert brief.returncode == full.returncode != 0
    assert brief.stderr == full.stderr


def test_a_question_keeps_the_mark(state):
    done("sql", "SELECT 1", "--state", state)
    before = (state / CLOSED).read_bytes()
    done("sql", "SELECT count() FROM entries", "--state", state)
    assert (state / CLOSED).read_bytes() == before
    short(state, "sql", query="SELECT 1")


def test_an_owner_takes_the_mark_and_leaves_another(copy):
    before = (copy / CLOSED).read_bytes()
    assert "cut" in ask(copy, "job", name="accrue", now="2027-01-01T00:00:00Z", actor="test")[0]
    assert (copy / CLOSED).read_bytes() != before
    short(copy, "sql", query="SELECT 1")


def test_an_owner_that_was_killed_leaves_no_mark(copy):
    killed = mirrorpoint(
        "job", "accrue", "--state", copy, env={"MIRRORPOINT_CRASH": "accrue.after_cut"}
    )
    assert killed.returncode == -9
    assert not (copy / CLOSED).exists()
    assert ask(copy, "sql", query="SELECT 1")[1]


def test_a_replay_that_was_stopped_takes_no_cut_of_anothers(tmp_path, state):
    stopped = tmp_path / "stopped"
    crash = {"MIRRORPOINT_CRASH": "accrue.before_done:2"}
    assert mirrorpoint("replay", FIRST_DAY, "--state", stopped, env=crash).returncode == -9
    words = ("job", "accrue", "--state", stopped, "--now", "2031-01-01T00:00:00Z")
    refused = mirrorpoint(*words)
    assert refused.returncode == 1
    assert "run the same `mirrorpoint replay` again" in refused.stderr
    undisturbed = replayed(FIRST_DAY, state=tmp_path / "undisturbed")
    assert hashes(replayed(FIRST_DAY, state=stopped)) == hashes(undisturbed)
    (made,) = asked(stopped, "SELECT max(number) AS n FROM cuts")
    assert done(*words).startswith(f"cut {made['n'] + 1} ")


def test_a_damaged_journal_is_still_refused(copy):
    path = max((copy / "journal" / "visits").iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    result = mirrorpoint("sql", "SELECT 1", "--state", copy)
    assert result.returncode == 1
    assert str(path) in result.stderr


def test_other_keys_are_still_refused(copy):
    (copy / "keys" / "test").write_text("another seed")
    result = mirrorpoint("sql", "SELECT 1", "--state", copy)
    assert result.returncode != 0
    assert "made with another keys" in result.stderr
    (copy / "keys" / "test").chmod(0o644)
    result = mirrorpoint("sql", "SELECT 1", "--state", copy)
    assert result.returncode == 2
    assert "lets others in" in result.stderr


def test_a_store_that_was_lost_is_filled_again(copy):
    def visits() -> tuple[int, bool]:
        found, opened = ask(copy, "sql", query="SELECT count() AS n FROM visits")
        return json.loads(found)["data"][0]["n"], opened

    there, opened = visits()
    assert there > 10
    assert not opened
    shutil.rmtree(copy / "clickhouse")
    assert visits() == (there, True)
    assert visits() == (there, False)
    assert (copy / CLOSED).exists()


def test_the_journal_is_locked_meanwhile(copy):
    with OwnerLock(copy / "journal" / "lock"):
        result = mirrorpoint("sql", "SELECT 1", "--state", copy)
    assert result.returncode == 1
    assert f"{copy / 'journal'} is in use" in result.stderr


def test_the_state_is_owned_meanwhile(copy):
    """Who finds it owned waits for the owner, which here never answers."""
    old = os.umask(0o077)
    try:
        with lock_state(copy), pytest.raises(subprocess.TimeoutExpired):
            mirrorpoint("sql", "SELECT 1", "--state", copy, seconds=3)
    finally:
        os.umask(old)
