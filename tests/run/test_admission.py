"""Every request is an act or nothing; who is denied, and what the file says, is on record."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.access import ACTS, COVERS, Role
from pipeline.model.identifiers import id_text
from pipeline.model.words import BOOK_COMMANDS
from pipeline.run.actors import own_actor, own_peer
from pipeline.run.admission import (
    Admission,
    about,
    act_of,
    admitted,
    denial,
    put_access,
    put_denied,
    standing_of,
)
from pipeline.run.permissions import (
    ACCESS_FILE,
    AccessError,
    Denied,
    Permissions,
    read_permissions,
)
from pipeline.run.requests import answer
from pipeline.run.state import State
from tests.run.accruing import RULES
from tests.score.making import KEYS, NOON, an_id

LIVE = replace(KEYS, test=False)
IDENTITY = {"do": "explain", "id": "x", "question": {"with_identity": True}}
ACT_OF = {
    "sql": {"do": "sql", "query": "SELECT 1"},
    "explain": {"do": "explain", "id": "x", "question": {}},
    "identity": IDENTITY,
    "accrue": {"do": "job", "name": "accrue"},
    "audit": {"do": "job", "name": "audit", "head": True},
    "review": {"do": "job", "name": "review"},
    "decide": {"do": "job", "name": "review", "verdict": "release"},
    "claim": {"do": "job", "name": "claim"},
    "settle": {"do": "job", "name": "settle"},
    "liability": {"do": "job", "name": "liability"},
    "publish": {"do": "job", "name": "publish"},
    "rerate": {"do": "job", "name": "rerate"},
    **{name: {"do": "book", "name": name} for name in ("balance", "waiting", "trail")},
    **{kind: {"do": "book", "name": kind} for kind in BOOK_COMMANDS},
}


@pytest.mark.parametrize("act", ACT_OF)
def test_each_request_is_one_act(act):
    assert act_of(ACT_OF[act]) == act


def test_every_act_can_be_asked_for():
    asked = {*ACT_OF, "inform"}  # facts of members come by files
    assert asked == {*ACTS, *BOOK_COMMANDS, "publish", "rerate"}
    assert COVERS[Role.ADMIN] - asked == set()


@pytest.mark.parametrize(
    "request_",
    [
        {}, {"do": "denied", "actor": "x", "act": "", "about": ""}, {"do": "book"},
        {"do": "job"}, {"do": "job", "name": "erase"}, {"do": "book", "name": "accrue"},
        {"do": "book", "name": "denied"}, {"do": None, "name": "sql"}, {"do": "SQL"},
        {"do": "access"}, {"do": "job", "name": "balance"},
    ],
)  # fmt: skip
def test_what_is_no_act_is_denied_to_everybody(request_):
    assert act_of(request_) == ""
    with pytest.raises(Denied, match="nothing that a role covers"):
        admitted(Permissions(os.getuid()), request_, own_peer())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
)
KEYS_OF = ("do", "name", "question", "verdict", "as", "id", "said", "member", "with_identity")
WORDS = st.sampled_from(["sql", "explain", "job", "book", "denied", *ACTS, *BOOK_COMMANDS])


@given(st.dictionaries(st.sampled_from(KEYS_OF), WORDS | JSON))
def test_whatever_is_asked_is_let_in_as_an_act_or_denied(asked):
    act, everything = act_of(asked), Permissions(os.getuid())
    if act and not asked.get("as"):
        assert act in COVERS[Role.ADMIN] | {"publish", "rerate"}
        assert admitted(everything, asked, own_peer())["role"] == "admin"
    else:
        with pytest.raises(Denied) as raised:
            admitted(everything, asked, own_peer())
        assert raised.value.act == act


def test_nobody_says_who_they_are():
    asked = {"do": "sql", "actor": "mallory", "role": "auditor", "scope": "region:x"}
    found = admitted(Permissions(os.getuid()), asked, own_peer())
    assert (found["actor"], found["role"], found["scope"]) == (own_actor(), "admin", "")
    assert standing_of(found) == {"role": "admin", "scope": ""}
    assert standing_of({"do": "job"}) == {"role": "", "scope": ""}


ID = id_text(an_id("ann"))


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"do": "sql", "query": f"SELECT '{ID}'"}, ""),
        ({"do": "explain", "id": ID}, f"id {ID}"),
        ({"do": "explain", "id": "ann@isp.example"}, ""),
        ({"do": "job", "name": "review", "conversion": ID.upper()}, f"conversion {ID}"),
        ({"do": "book", "name": "adjust", "said": {"member": ID, "reason": "x"}}, f"member {ID}"),
        ({"do": "book", "name": "approve", "said": {"request": ID}}, f"request {ID}"),
        ({"do": "book", "name": "commit", "said": {"order": "ann@isp.example"}}, ""),
        ({"do": "book", "name": "freeze", "said": [1]}, ""),
        ({"do": "book", "name": "balance", "member": 7}, ""),
    ],
)
def test_what_is_put_on_record_is_an_id_and_no_text_of_theirs(request_, told):
    assert about(request_) == told


def a_state(tmp_path, keys) -> State:
    name = f"admission_{tmp_path.name}".replace("-", "_").lower()[:60]
    found = State(tmp_path, keys, RULES, clickhouse_url="chdb://:memory:", database=name)
    found.use_rulebook(RULES, NOON)
    return found


@pytest.fixture
def state(tmp_path):
    found = a_state(tmp_path, LIVE)
    yield found
    assert found.book.audit() == []
    found.close()


def rows(state, kind: str) -> list[dict]:
    state.deliver()
    query = "SELECT actor, role, scope, body, received_at FROM commands_log"
    found = state.clickhouse.dicts(f"{query} WHERE kind = '{kind}' ORDER BY stream_offset")
    return [row | {"body": json.loads(row["body"])} for row in found]


def test_who_was_denied_is_in_the_journal_and_at_the_next_cut_in_the_trail(state):
    denied = Denied("no", "eve", "decide", f"conversion {ID}")
    assert answer(state, denial(denied)) == b""
    put_denied(state, denial(Denied("no", "eve", "")), NOON)
    (first, second) = rows(state, "denied")
    assert (first["actor"], first["role"], first["scope"]) == ("eve", "", "")
    assert first["body"] == {
        "act": "decide", "object": f"decide conversion {ID}", "result": "not_allowed",
    }  # fmt: skip
    assert second["body"]["object"] == "unknown"
    assert state.book.trail() == []
    state.accrue(state.make_cut(1, "cut-1", NOON, None), "tests")
    one, two = state.book.trail()
    assert (one.actor, one.role, one.action) == ("eve", "", "denied")
    assert (one.object, one.result) == (f"decide conversion {ID}", "not_allowed")
    assert two.object == "unknown"


def test_a_denial_is_durable_before_anybody_is_told(state):
    before = state.journal.rows("commands")
    answer(state, denial(Denied("no", "eve", "sql")))
    state.journal._streams["commands"].pending.clear()  # what a crash would lose
    assert state.journal.rows("commands") == before + 1


def test_a_replay_only_refuses(tmp_path):
    state = a_state(tmp_path, KEYS)
    request = denial(Denied("no", "eve", "sql"))
    assert answer(state, request, replaying=True) == b""
    state.command("ingest_begin", "replay", {}, "replay", 0)
    assert answer(state, request) == b""
    assert rows(state, "denied") == []
    state.command("ingest_end", "replay", {}, "replay", 0)
    answer(state, request)
    assert len(rows(state, "denied")) == 1
    (tmp_path / ACCESS_FILE).write_text("[people.root]\nroles = ['auditor']\n")
    put_access(state, read_permissions(tmp_path), NOON)
    assert rows(state, "access") == [], "a test is nobody's to be told of"
    state.close()


def write(folder, text: str) -> None:
    path = folder / ACCESS_FILE
    path.write_text(text)
    path.chmod(0o600)


def test_the_file_and_every_change_of_it_are_on_record(state, tmp_path):
    put_access(state, read_permissions(tmp_path), NOON)
    assert rows(state, "access") == [], "there is none, and there was none"
    write(tmp_path, "[people.root]\nroles = ['auditor']\n")
    first = read_permissions(tmp_path)
    put_access(state, first, NOON)
    put_access(state, first, NOON + 1)
    state.access = None  # another owner, who has to look
    put_access(state, first, NOON + 2)
    write(tmp_path, "[people.root]\nroles = ['admin']\n")
    second = read_permissions(tmp_path)
    put_access(state, second, NOON + 3)
    (tmp_path / ACCESS_FILE).unlink()
    state.access = None
    put_access(state, read_permissions(tmp_path), NOON + 4)
    found = rows(state, "access")
    assert [row["actor"] for row in found] == [own_actor()] * 3
    bodies = [row["body"] for row in found]
    hashes = [(body["before"], body["after"]) for body in bodies]
    assert hashes == [("", first.digest), (first.digest, second.digest), (second.digest, "")]
    assert bodies[0]["people"] == {"root": {"roles": ["auditor"], "scope": ""}}
    assert "people" not in bodies[2]
    state.accrue(state.make_cut(1, "cut-1", NOON + 9, None), "tests")
    deeds = state.book.trail()
    assert [(d.action, d.object, d.before, d.after) for d in deeds] == [
        ("access", "access.toml", before, after) for before, after in hashes
    ]


def test_what_changes_while_it_runs_holds_from_the_next_look(tmp_path):
    admission = Admission(tmp_path)
    assert admission.look() is False
    assert admission.admit({"do": "sql"}, own_peer())["role"] == "admin"
    write(tmp_path, f"[people.'{own_actor()}']\nroles = ['auditor']\n")
    assert admission.admit({"do": "sql"}, own_peer())["role"] == "admin"
    assert admission.look() is True
    assert admission.admit({"do": "sql"}, own_peer())["role"] == "auditor"
    assert admission.look() is False
    write(tmp_path, "[people.root]\nroles = 3\n")
    assert admission.look() is True
    with pytest.raises(AccessError):
        admission.admit({"do": "sql"}, own_peer())
    (tmp_path / ACCESS_FILE).chmod(0o620)
    admission.look()
    assert "others may write it" in admission.permissions.mistakes[0]
    (tmp_path / ACCESS_FILE).unlink()
    assert admission.look() is True
    assert admission.admit({"do": "sql"}, own_peer())["role"] == "admin"


def test_an_owner_does_not_begin_with_a_file_that_has_mistakes(tmp_path):
    write(tmp_path, "[people.root]\nroles = 3\n")
    with pytest.raises(AccessError):
        Admission(tmp_path)
