"""Who is let in: every request to an owner gets its actor, role and scope here, or is denied.

A request is one of the acts of `model/access.py` or a kind of command to the book; what is neither
is denied. What was denied is journalled by the owner before the person is told (command `denied`:
what, and about which id), and so is every change of the file that says who may do what (command
`access`: its content, and the hashes before and after), with the folder's owner as actor. A replay
takes nothing but its input: until it is done it only refuses, and a test's file is not put on
record.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.model.identifiers import NO_ID, id_text, parse_id
from pipeline.model.words import BOOK_COMMANDS
from pipeline.run.actors import Peer, actor_of
from pipeline.run.permissions import (
    AccessError,
    Denied,
    Permissions,
    read_permissions,
    signature,
    with_mistakes,
)
from pipeline.run.questions import shows_login

if TYPE_CHECKING:
    from pipeline.run.state import State

Request = dict[str, Any]
DENIED, ACCESS = "denied", "access"
NOT_ALLOWED = "not_allowed"
# Jobs, and which act each is.
JOBS = {
    **{name: name for name in ("accrue", "audit", "review", "claim", "settle", "liability")},
    "publish": "publish",
    "rerate": "rerate",
    "pending": "waiting",
}
BOOK_QUESTIONS = frozenset({"balance", "waiting", "trail"})
# Keys of a request that may name what it is about, by an id.
ABOUT = ("id", "conversion", "claim", "member", "request")


def act_of(request: Request) -> str:
    """Which act a request is; empty for none, which nobody may do."""
    name = request.get("name")
    name = name if isinstance(name, str) else ""
    match request.get("do"):
        case "sql":
            return "sql"
        case "explain" if isinstance(request.get("question", {}), dict):
            return "identity" if shows_login(request) else "explain"
        case "job" if name == "review" and request.get("verdict"):
            return "decide"
        case "job" if name in JOBS:
            return JOBS[name]
        case "book" if name in BOOK_QUESTIONS or name in BOOK_COMMANDS:
            return name
    return ""


def about(request: Request) -> str:
    """The id that a request names, and what it calls it; never a text of somebody's own."""
    said = request.get("said")
    for words in (request, said if isinstance(said, dict) else {}):
        for key in ABOUT:
            found = parse_id(words[key]) if isinstance(words.get(key), str) else None
            if found is not None and found != NO_ID:
                return f"{key} {id_text(found)}"
    return ""


def admitted(permissions: Permissions, request: Request, peer: Peer) -> Request:
    """The request with its actor, role and scope. Raises Denied and AccessError."""
    standing = permissions.standing(
        peer, act_of(request), str(request.get("as") or ""), about(request)
    )
    return request | standing._asdict()


def standing_of(request: Request) -> dict[str, Any]:
    """Role and scope of whoever was let in, as they go with a command."""
    return {name: str(request.get(name) or "") for name in ("role", "scope")}


class Admission:
    """The permissions of a state folder, as the file says them now."""

    def __init__(self, folder: Path) -> None:
        """Read the file. Raises AccessError."""
        self._folder = folder
        self._signature = signature(folder)
        self.permissions = read_permissions(folder)

    def admit(self, request: Request, peer: Peer) -> Request:
        """The request with its actor, role and scope. Raises Denied and AccessError."""
        return admitted(self.permissions, request, peer)

    def look(self) -> bool:
        """Has the file changed? Then what it says now holds, and nothing where it has mistakes."""
        found = signature(self._folder)
        if found == self._signature:
            return False
        self._signature, before = found, self.permissions
        try:
            self.permissions = read_permissions(self._folder)
        except AccessError as error:
            self.permissions = with_mistakes(self._folder, error)
        return self.permissions != before


def denial(denied: Denied) -> Request:
    """What is asked of the owner's own thread when somebody was denied."""
    return {"do": DENIED, "actor": denied.actor, "act": denied.act, "about": denied.about}


def put_denied(state: State, request: Request, now_ns: int) -> None:
    """Put on record, durably, that somebody was denied something."""
    act, what = str(request["act"]), str(request["about"])
    body = {"act": act, "object": f"{act or 'unknown'} {what}".strip(), "result": NOT_ALLOWED}
    ref = f"{now_ns} {secrets.token_hex(8)}"
    state.command(DENIED, ref, body, str(request["actor"]), now_ns)
    state.journal.sync()


def put_access(state: State, permissions: Permissions, now_ns: int) -> None:
    """Put on record what the file says, if that is not what was put on record last."""
    if state.keys.test:
        return
    before = _last(state)
    state.access = permissions.digest
    if before == permissions.digest:
        return
    body = {
        **permissions.as_said(),
        "object": "access.toml",
        "before": before,
        "after": permissions.digest,
    }
    actor = actor_of(permissions.owner)
    state.command(ACCESS, f"{now_ns} {permissions.digest}", body, actor, now_ns)
    state.deliver()


def _last(state: State) -> str:
    """The hash of the file that was put on record last."""
    if state.access is not None:
        return state.access
    state.deliver()
    found = state.clickhouse.rows(
        "SELECT JSONExtractString(body, 'after') FROM commands_log"
        f" WHERE kind = '{ACCESS}' ORDER BY stream_offset DESC LIMIT 1"
    )
    return str(found[0][0]) if found else ""
