"""Several people and one state: a door, roles by user and by group, two persons, and who is denied.

Real users of the system ask, so all of it needs root to become them.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.run.permissions import ACCESS_FILE
from tests.commands import asked, done, mirrorpoint
from tests.run.test_alone import ask
from tests.run.test_watch import WORDS, capture, old_rules, people, running, until

pytestmark = pytest.mark.slow  # a process for each question

GUESTS = "users"  # the group that may come in
# Users of every Debian: who works at the desk, who approves, and somebody else.
DESK, APPROVER, STRANGER = "daemon", "games", "nobody"
AUDITORS = "sys"
ACCESS = f"""
[people.{DESK}]
roles = ["call_centre"]

[people.{APPROVER}]
roles = ["approver", "finance"]

[groups.{AUDITORS}]
roles = ["auditor"]

[door]
socket = "%s"
group = "{GUESTS}"
"""


# Loads what a command needs, for others may not be able to read it; then is somebody else for good.
BECOME = """
import os, secrets, sys
import pipeline.capture.facts, pipeline.run.cases, pipeline.run.client, pipeline.run.inputs
from pipeline.cli import main
user, group, *groups = map(int, sys.argv.pop(1).split())
os.setgroups(groups)
os.setresgid(group, group, group)
os.setresuid(user, user, user)
main(prog_name="mirrorpoint")
"""


def as_user(user: str, *words: object, groups: str = GUESTS) -> subprocess.CompletedProcess[str]:
    """Run `mirrorpoint` as another user, with these supplementary groups and no others."""
    found = pwd.getpwnam(user)
    others = [grp.getgrnam(name).gr_gid for name in groups.split(",") if name]
    ids = " ".join(map(str, (found.pw_uid, found.pw_gid, *others)))
    return subprocess.run(
        [sys.executable, "-c", BECOME, ids, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )


def told(result: subprocess.CompletedProcess[str]) -> dict | list:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


class Office:
    """A live state with an owner at work, and a door to it."""

    def __init__(self, folder: Path, hall: Path) -> None:
        self.state, self.drop, self.door = folder / "state", folder / "drop", hall / "door.sock"
        for name, text in old_rules().items():
            path = folder / "rules" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.drop.mkdir()
        people(self.drop)
        capture(self.drop, "one.pcap", 100)
        once = mirrorpoint(*running(self.drop, self.state), "--once")
        assert once.returncode == 0, once.stderr
        self.write(ACCESS % self.door)
        (row,) = asked(self.state, "SELECT DISTINCT subscriber_id AS who FROM basis_log")
        self.member = row["who"]
        self.process: subprocess.Popen[str] | None = None

    def write(self, text: str) -> None:
        path = self.state / ACCESS_FILE
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").chmod(0o600)
        path.with_suffix(".new").rename(path)

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *map(str, running(self.drop, self.state))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        until(lambda: self.door.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.process.communicate()

    def stop(self) -> str:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors
        return errors

    def cut(self) -> None:
        done("job", "accrue", "--state", self.state)

    def trail(self) -> list[dict]:
        return json.loads(done("book", "trail", "--state", self.state, "--json"))


@pytest.fixture
def office(tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root can ask as other users")
    hall = Path(tempfile.mkdtemp(prefix="hall-"))  # pytest's own folders are for one user only
    hall.chmod(0o755)
    found = Office(tmp_path, hall)
    try:
        yield found
    finally:
        if found.process is not None and found.process.poll() is None:
            found.process.kill()
            found.process.wait()
        shutil.rmtree(hall)


def test_two_persons_by_the_command_line(office):
    office.start()
    mode = office.door.stat().st_mode
    assert stat.S_IMODE(mode) == 0o660
    at_door = ("--state", office.door)
    gift = ("--member", office.member, "--points", 500, "--reason", "a parcel was lost")
    first = told(as_user(DESK, "book", "adjust", *at_door, *gift, "--ref", "gift", "--json"))
    assert (first["actor"], first["role"]) == (DESK, "call_centre")
    again = as_user(DESK, "book", "adjust", *at_door, *gift, "--ref", "gift")
    assert f"asked before by {DESK}, as of the next cut" in again.stdout
    own = told(mirrorpoint("book", "adjust", *at_door, *gift, "--ref", "own", "--json"))
    assert (own["actor"], own["role"]) == ("root", "admin")
    office.cut()
    waits = told(as_user(APPROVER, "book", "waiting", *at_door, "--json"))
    assert {(item["ref"], item["actor"]) for item in waits} == {("gift", DESK), ("own", "root")}
    denied = as_user(DESK, "book", "approve", *at_door, "--request", first["command"])
    assert denied.returncode == 1
    assert f"approve is denied to {DESK} (call_centre)" in denied.stderr
    assert "it takes admin, approver, finance" in " ".join(denied.stderr.split())
    done("book", "approve", *at_door, "--request", own["command"], "--ref", "mine")
    for item in waits:
        words = ("--request", item["request"], "--as", "finance", "--json")
        other = told(as_user(APPROVER, "book", "approve", *at_door, *words))
        assert (other["actor"], other["role"]) == (APPROVER, "finance")
    office.cut()
    balance = told(as_user(DESK, "book", "balance", *at_door, "--member", office.member, "--json"))
    assert (balance["available"], balance["waiting"]) == (1000, [])
    rows = {(row["action"], row["actor"], row["result"]) for row in office.trail()}
    assert rows >= {
        ("adjust", DESK, "awaiting_approval"), ("adjust", "root", "awaiting_approval"),
        ("denied", DESK, "not_allowed"), ("approve", "root", "same_person"),
        ("approve", APPROVER, "ok"), ("access", "root", "on_record"),
    }  # fmt: skip
    (said,) = [row for row in office.trail() if row["action"] == "denied"]
    assert said["object"] == f"approve request {first['command']}"
    done("job", "audit", *at_door)
    assert office.stop() == ""
    assert not office.door.exists()


def test_who_comes_in_by_a_group_and_who_does_not(office):
    office.start()
    at_door = ("--state", office.door)
    outside = as_user(STRANGER, "sql", *at_door, "SELECT 1", groups="")
    assert outside.returncode == 2
    inside = as_user(STRANGER, "sql", *at_door, "SELECT 1")
    assert inside.returncode == 1
    assert f"sql is denied to {STRANGER} (no role)" in inside.stderr
    assert max(map(len, inside.stderr.splitlines())) <= 80
    auditor = as_user(STRANGER, "sql", *at_door, "SELECT 1", groups=f"{GUESTS},{AUDITORS}")
    assert auditor.returncode == 0, auditor.stderr
    login = as_user(
        STRANGER, "explain", *at_door, "x", "--with-identity", groups=f"{GUESTS},{AUDITORS}"
    )
    assert f"identity is denied to {STRANGER} (auditor)" in login.stderr
    refused = mirrorpoint("replay", office.drop, *at_door, "--parse-for", "listed")
    assert refused.returncode == 2
    assert "is a door to a state, not its folder" in refused.stderr
    refused = mirrorpoint("run", "--watch", office.drop, *at_door, *WORDS, "--once")
    assert (refused.returncode, "is a door" in refused.stderr) == (2, True)
    folder = as_user(STRANGER, "sql", "--state", office.state, "SELECT 1")
    assert folder.returncode == 2
    assert "Traceback" not in folder.stderr
    office.cut()
    assert [row["actor"] for row in office.trail() if row["action"] == "denied"] == [STRANGER] * 2
    office.stop()


def test_what_the_file_says_holds_within_a_moment(office):
    office.start()
    words = ("sql", "--state", office.door, "SELECT 1")
    assert as_user(STRANGER, *words).returncode == 1
    office.write(ACCESS % office.door + f'[people.{STRANGER}]\nroles = ["analyst"]\n')
    until(lambda: as_user(STRANGER, *words).returncode == 0)
    office.write("[people.x]\nrole = []\n")
    until(lambda: as_user(STRANGER, *words).returncode == 2)
    assert "until they are mended" in as_user(STRANGER, *words).stderr
    mine = mirrorpoint("sql", "--state", office.state, "SELECT 1")
    assert mine.returncode == 2
    assert "nearest: roles" in mine.stderr
    moved = office.door.with_name("other.sock")
    office.write(ACCESS % moved)
    until(moved.exists)
    assert not office.door.exists()
    assert as_user(DESK, "book", "waiting", "--state", moved).returncode == 0
    kinds = asked(office.state, "SELECT JSONExtractString(body, 'after') AS after FROM"
                                " commands_log WHERE kind = 'access'")  # fmt: skip
    assert len({row["after"] for row in kinds}) == len(kinds) == 4
    errors = office.stop()
    assert "until that is mended, everything that is asked is denied" in errors
    assert "x: found " in errors
    assert not moved.exists()


def test_nobody_gets_round_it_where_there_is_no_owner(office):
    """Whoever owns the folder and took a role from themselves is denied by their own process."""
    sql = ("sql", "--state", office.state, "SELECT 1")
    office.write('[people.root]\nroles = ["auditor"]\n')
    opened = [ask(office.state, "sql", query="SELECT 1")[1] for _ in range(2)]
    assert opened == [True, False], "what the file says is put on record first, once"
    accrue = mirrorpoint("job", "accrue", "--state", office.state)
    assert accrue.returncode == 1
    assert "accrue is denied to root (auditor)" in accrue.stderr
    office.write('[people.root]\nroles = ["network_engineer"]\n')
    for _ in range(2):
        denied = mirrorpoint(*sql)
        assert (denied.returncode, denied.stdout) == (1, "")
        assert "sql is denied to root (network_engineer)" in denied.stderr
    office.write("[people.root]\nroles = 1\n")
    wrong = mirrorpoint(*sql)
    assert (wrong.returncode, "expected an array of roles" in wrong.stderr) == (2, True)
    (office.state / ACCESS_FILE).unlink()
    office.cut()
    deeds = [(row["action"], row["object"]) for row in office.trail()]
    assert deeds[-6:] == [
        ("access", "access.toml"), ("denied", "accrue"), ("access", "access.toml"),
        ("denied", "sql"), ("denied", "sql"), ("access", "access.toml"),
    ]  # fmt: skip
    done("job", "audit", "--state", office.state)


def test_an_owner_does_not_begin_where_it_cannot_open_its_door(office):
    office.write(ACCESS % (office.door.parent / "none" / "door.sock"))
    once = mirrorpoint(*running(office.drop, office.state), "--once")
    assert once.returncode == 2
    assert "none/door.sock: No such file" in once.stderr
    office.write(ACCESS.replace(GUESTS, "no-such-group") % office.door)
    once = mirrorpoint(*running(office.drop, office.state), "--once")
    assert once.returncode == 2
    assert 'door.group: found "no-such-group", expected a group of this system' in once.stderr
    office.write(ACCESS % office.door)
    once = mirrorpoint(*running(office.drop, office.state), "--once")
    assert (once.returncode, once.stderr) == (0, "")
    assert not office.door.exists()


def test_heads_that_were_kept_elsewhere(office, tmp_path):
    state = ("--state", office.state)
    stock = ("book", "stock", *state, "--item", "cup", "--quantity")
    done(*stock, 5)
    office.cut()
    kept = tmp_path / "heads"
    kept.write_text(done("job", "audit", *state, "--head"))
    assert len(kept.read_text().splitlines()) == 3
    done(*stock, -2)
    office.cut()
    assert done("job", "audit", *state, "--against", kept).count("ok  ") == 3
    kept.write_text(kept.read_text().replace('"number": 1', '"number": 2'))
    failed = mirrorpoint("job", "audit", *state, "--against", kept)
    assert failed.returncode == 1
    assert "FAIL  requests 2" in failed.stderr
    kept.write_text("nothing\n")
    wrong = mirrorpoint("job", "audit", *state, "--against", kept)
    assert (wrong.returncode, f"{kept}:1: is no head" in wrong.stderr) == (2, True)
