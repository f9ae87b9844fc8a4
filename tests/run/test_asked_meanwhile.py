"""A replay is the owner of its state: questions and jobs are answered while it works.

Asked over its socket, so an answer can only be the owner's, and once by each command. Nothing that
is asked may change what the replay comes to.
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.run.owner import SOCKET, ask_owner
from tests.commands import hashes, mirrorpoint, replayed
from tests.forge.generated_day import write_day
from tests.forge.recut import cut_anywhere

pytestmark = pytest.mark.slow

SQL = {"do": "sql", "json": True}
JOB = {"do": "job", "json": True, "actor": "tests"}


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    """A day with so many cuts that a replay of it works for some time, most of it at cuts."""
    case = write_day(tmp_path_factory.mktemp("day") / "case", visits=800, seed=11)
    cut_anywhere(case, random.Random(11), 20)
    return case


class Asking:
    """A replay at work; every question fails the test where the replay does not answer it."""

    def __init__(self, process, state):
        self.process, self.state = process, state

    def owner(self, request):
        body = ask_owner(self.state, request)
        assert body is not None, "nobody answers on the socket"
        return json.loads(body)

    def rows(self, query):
        return self.owner(SQL | {"query": query})["data"]

    def until(self, query, seconds=60):
        """The rows of a query, once there are any."""
        deadline = time.monotonic() + seconds
        while not (found := self.rows(query)):
            assert time.monotonic() < deadline, f"nothing came of {query}"
            time.sleep(0.02)
        return found

    def command(self, *words):
        """A command of its own, answered by the owner: who is still at work holds the lock."""
        result = mirrorpoint(*words, "--state", self.state, "--json")
        assert self.process.poll() is None, "the replay had ended; nobody was asked meanwhile"
        assert result.returncode == 0, (words, result.stderr)
        return json.loads(result.stdout)


@pytest.fixture
def asking(day, tmp_path):
    state = tmp_path / "state"
    words = ("replay", day, "--state", state, "--json", "--rows", "16")
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        while not (state / SOCKET).exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        yield Asking(process, state)
    finally:
        process.kill()
        process.wait()


def test_questions_and_jobs_during_a_replay(day, asking, tmp_path):
    decision = asking.until("SELECT decision_id AS id FROM decisions LIMIT 1")[0]["id"]
    links = asking.owner({"do": "explain", "id": decision, "json": True, "actor": "tests"})
    assert {"decision", "visit", "packet"} <= {link["what"] for link in links}
    entry = asking.until("SELECT entry_id AS id FROM entries LIMIT 1")[0]["id"]
    told = asking.owner(JOB | {"name": "accrue"})
    assert told["delivered_again"]
    assert set(told["results"]) <= {"exists", "stale"}, "a cut delivered again moved points"
    checks = asking.owner(JOB | {"name": "audit"})
    assert checks
    assert not any(checks.values())
    assert asking.command("sql", "SELECT count() AS n FROM visits")["data"][0]["n"] > 0
    assert "entry" in {link["what"] for link in asking.command("explain", entry)}
    assert not any(asking.command("job", "audit").values())
    output, errors = asking.process.communicate(timeout=120)
    assert asking.process.returncode == 0, errors
    assert not (asking.state / SOCKET).exists()
    report, alone = json.loads(output), replayed(day, state=tmp_path / "alone")
    assert hashes(report) == hashes(alone)
    assert report["entries"] == alone["entries"]
