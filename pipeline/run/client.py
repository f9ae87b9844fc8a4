"""`sql`, `explain`, `job` and `book`: ask the owner of the state, or become one for a moment."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from pipeline.run.actors import own_actor, own_peer
from pipeline.run.admission import admitted, denial, put_access
from pipeline.run.alone import closed_state
from pipeline.run.failures import RequestError
from pipeline.run.folder import StateError, lock_state
from pipeline.run.listener import OwnerStopped, ask_socket
from pipeline.run.owner import Request, ask_owner
from pipeline.run.permissions import Denied, read_permissions
from pipeline.run.questions import answer_question, shows_login
from pipeline.store.keys import have_keys, load_keys
from pipeline.store.lock import LockError

WAIT_SECONDS = 30.0
REFILLED = (
    "{folder}/clickhouse was lost. Rows of the journal and entries of the book were delivered "
    "again; what accrual sent and was answered at earlier cuts (conversions, runs) was not: "
    "`mirrorpoint replay {folder} --state NEW_FOLDER` makes all of it again from the journal."
)


def ask(state: Path, request: Request) -> bytes:
    """The answer of the state's owner; without one, of this process as its owner for a moment.

    `state` is a state folder, or the door of an owner, who alone answers there.
    """
    if state.is_socket():
        body = ask_socket(state, request)
        if body is None:
            raise StateError(f"nobody answers at {state}; `mirrorpoint run` opens that door")
        return body
    if not state.is_dir() or not have_keys(state):
        raise StateError(
            f"{state} is not a state folder; `mirrorpoint replay ... --state {state}` makes one"
        )
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        body = ask_owner(state, request)
        if body is not None:
            return body
        try:
            lock = lock_state(state)
        except LockError:
            # Somebody owns the state but does not answer yet (starting), or has just stopped.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
            continue
        with lock:
            return _answer_alone(state, request)


def _answer_alone(folder: Path, asked: Request) -> bytes:
    """The answer of this process, which asks itself as an owner does whoever comes to it."""
    keys = load_keys(folder, allow_test=True)
    permissions = read_permissions(folder)
    denied: Denied | None = None
    request = asked
    try:
        request = admitted(permissions, asked, own_peer())
    except Denied as error:
        denied, request = error, denial(error)
    if not _writes(request):
        with closed_state(folder, keys) as closed:
            if closed is not None and (keys.test or closed.closed.access == permissions.digest):
                return answer_question(closed, request)
    # Only who works on a state, or finds one that was not closed, loads what ingests and books.
    from pipeline.run.replay import first_rulebook
    from pipeline.run.requests import answer
    from pipeline.run.state import State, now_ns

    state = State(folder, keys, first_rulebook(folder, keys))
    try:
        state.use_last_rulebook()
        if state.refill_store():
            click.echo(REFILLED.format(folder=folder), err=True)
        if request["do"] in ("job", "book"):
            state.complete_cuts(own_actor())
        # A question puts no file on record that is not there: the folder may be half a replay's.
        if permissions.digest or _writes(request):
            put_access(state, permissions, now_ns())
        body = answer(state, request)
    finally:
        state.close()
    if denied is not None:
        raise denied
    return body


def _writes(request: Request) -> bool:
    return request["do"] not in ("sql", "explain") or shows_login(request)


def sql_command(state: Path, query: str, as_json: bool) -> int:
    """`mirrorpoint sql`."""
    _print(ask(state, {"do": "sql", "query": query, "json": as_json}))
    return 0


def explain_command(
    state: Path, identifier: str, as_json: bool, question: dict[str, Any], role: str | None = None
) -> int:
    """`mirrorpoint explain`."""
    request = {"do": "explain", "id": identifier, "json": as_json, "question": question}
    _print(ask(state, request | {"as": role}))
    return 0


def job_command(state: Path, name: str, options: dict[str, Any], as_json: bool) -> int:
    """`mirrorpoint job NAME`."""
    request = {"do": "job", "name": name, "json": as_json}
    _print(ask(state, request | options))
    return 0


def audit_command(state: Path, head: bool, against: Path | None, as_json: bool) -> int:
    """`mirrorpoint job audit`."""
    options: dict[str, Any] = {"head": head}
    if against is not None:
        from pipeline.run.kept_heads import read_heads

        options["against"] = read_heads(against)
    return job_command(state, "audit", options, as_json)


def book_command(state: Path, name: str, options: dict[str, Any], as_json: bool) -> int:
    """`mirrorpoint book NAME`."""
    request = {"do": "book", "name": name, "json": as_json} | options
    try:
        _print(ask(state, request))
    except OwnerStopped as error:
        again = f"{error} with --ref {options['ref']}" if "ref" in options else str(error)
        raise RequestError(again) from error
    return 0


def _print(body: bytes) -> None:
    sys.stdout.buffer.write(body)
    sys.stdout.flush()
