"""`sql`, `explain` and `job`: ask the owner of the state, or become one for a moment."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from pipeline.run.actors import own_actor
from pipeline.run.alone import closed_state
from pipeline.run.folder import StateError, lock_state
from pipeline.run.owner import Request, ask_owner
from pipeline.run.questions import answer_question, shows_login
from pipeline.store.keys import have_keys, load_keys
from pipeline.store.lock import LockError

WAIT_SECONDS = 30.0
REFILLED = (
    "{folder}/clickhouse was lost. Rows of the journal and entries of the book were delivered "
    "again; what accrual sent and was answered at earlier cuts (conversions, runs) was not: "
    "`mirrorpoint replay {folder} --state NEW_FOLDER` makes all of it again from the journal."
)


def ask(folder: Path, request: Request) -> bytes:
    """The answer of the state's owner; without one, of this process as its owner for a moment."""
    if not folder.is_dir() or not have_keys(folder):
        raise StateError(
            f"{folder} is not a state folder; `mirrorpoint replay ... --state {folder}` makes one"
        )
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        body = ask_owner(folder, request)
        if body is not None:
            return body
        try:
            lock = lock_state(folder)
        except LockError:
            # Somebody owns the state but does not answer yet (starting), or has just stopped.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
            continue
        with lock:
            return _answer_alone(folder, request | {"actor": own_actor()})


def _answer_alone(folder: Path, request: Request) -> bytes:
    keys = load_keys(folder, allow_test=True)
    if request["do"] != "job" and not shows_login(request):
        with closed_state(folder, keys) as closed:
            if closed is not None:
                return answer_question(closed, request)
    # Only who works on a state, or finds one that was not closed, loads what ingests and books.
    from pipeline.run.replay import first_rulebook
    from pipeline.run.requests import answer
    from pipeline.run.state import State

    state = State(folder, keys, first_rulebook(folder, keys))
    try:
        state.use_last_rulebook()
        if state.refill_store():
            click.echo(REFILLED.format(folder=folder), err=True)
        if request["do"] == "job":
            state.complete_cuts(own_actor())
        return answer(state, request)
    finally:
        state.close()


def sql_command(folder: Path, query: str, as_json: bool) -> int:
    """`mirrorpoint sql`."""
    _print(ask(folder, {"do": "sql", "query": query, "json": as_json}))
    return 0


def explain_command(folder: Path, identifier: str, as_json: bool, question: dict[str, Any]) -> int:
    """`mirrorpoint explain`."""
    request = {"do": "explain", "id": identifier, "json": as_json, "question": question}
    _print(ask(folder, request))
    return 0


def job_command(folder: Path, name: str, options: dict[str, Any], as_json: bool) -> int:
    """`mirrorpoint job NAME`."""
    request = {"do": "job", "name": name, "json": as_json}
    _print(ask(folder, request | options))
    return 0


def _print(body: bytes) -> None:
    sys.stdout.buffer.write(body)
    sys.stdout.flush()
