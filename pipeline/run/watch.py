"""`mirrorpoint run --watch DIR`: own a live state and ingest what is dropped into a folder.

Everything that lies ready at one look is one unit of input (`units.py`). A file has to be whole
when it appears: write it under a name that starts with a dot or ends in `.part`, then rename it. As
a second net, a file that grew between two looks is left for the next.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.model.settings import EngineSettings
from pipeline.rulebook.read import load
from pipeline.run.actors import own_actor
from pipeline.run.admission import Admission, put_access
from pipeline.run.cases import parse_for, parse_prefixes, prefix_text
from pipeline.run.failures import WRONG, RequestError
from pipeline.run.folder import StateError, lock_state
from pipeline.run.owner import OwnerServer
from pipeline.run.requests import answer
from pipeline.run.state import State, now_ns
from pipeline.run.units import Units
from pipeline.store.keys import create_live_keys, have_keys, load_keys

if TYPE_CHECKING:
    from pipeline.rulebook.model import Rulebook
    from pipeline.run.metrics import Metrics

SECONDS_BETWEEN_LOOKS = 1.0


def watch_command(
    folder: Path, state_folder: Path, rules: Path | None, options: dict[str, Any]
) -> int:
    """`mirrorpoint run --watch DIR`: until stopped, or once."""
    settings = EngineSettings(
        parse_for(options["parse_for"]),
        parse_prefixes(options.get("subscribers") or ()),
    )
    rulebook = load(rules)
    options = options | {"rules": rules}
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _frame: stopped.append(got))
    with lock_state(state_folder):
        if not have_keys(state_folder):
            create_live_keys(state_folder)
        keys = load_keys(state_folder, allow_test=False)
        admission = Admission(state_folder)
        state = State(state_folder, keys, rulebook)
        try:
            server = OwnerServer(
                state_folder,
                ask=lambda request: answer(state, request),
                act=lambda request: answer(state, request),
                admit=admission.admit,
            )
            try:
                server.use_door(admission.permissions.door)
                _watch(state, settings, folder, _Desk(state, admission, server), options, stopped)
            finally:
                server.close()
        finally:
            state.close()
    return 0


class _Desk:
    """What the owner looks at between two batches: who may do what now, and what was asked."""

    def __init__(self, state: State, admission: Admission, server: OwnerServer) -> None:
        self._state, self._admission, self._server = state, admission, server

    def poll(self, timeout_seconds: float = 0.0) -> None:
        """Do what is queued, by the permissions as they are now."""
        if self._admission.look():
            self.put_on_record()
            self._tell()
        self._server.poll(timeout_seconds)

    def put_on_record(self) -> None:
        """Journal the permissions, unless they were."""
        put_access(self._state, self._admission.permissions, now_ns())

    def _tell(self) -> None:
        """Say what is wrong with a file that changed; open the door that it names."""
        permissions = self._admission.permissions
        for mistake in permissions.mistakes:
            click.echo(mistake, err=True)
        if permissions.mistakes:
            click.echo("until that is mended, everything that is asked is denied", err=True)
            return
        try:
            self._server.use_door(permissions.door)
        except StateError as error:
            click.echo(str(error), err=True)


def _metrics(options: dict[str, Any]) -> Metrics | None:
    """The file of metrics, where one is asked for; written, so that it is known to be possible."""
    path = options.get("metrics")
    if path is None:
        return None
    from pipeline.run.metrics import Metrics  # its library takes a tenth of a second

    metrics = Metrics(path)
    metrics.begin()
    return metrics


def _install_rules(state: State, given: Rulebook, is_new: bool, folder: Path | None) -> None:
    """A new state takes the rules it is given; later ones come into force by being published."""
    if is_new:
        state.use_rulebook(given, now_ns())
        return
    state.use_last_rulebook()
    state.take_due_rulebook(now_ns())
    if folder is not None and given.hash != state.rulebook.hash:
        raise RequestError(
            f"{folder} has other rules than those in force. Start without --rules, and have them "
            f"published: `mirrorpoint rules publish {folder} --state {state.folder} --reason ...`, "
            "which a second person approves",
            WRONG,
        )


def _watch(
    state: State,
    settings: EngineSettings,
    folder: Path,
    desk: _Desk,
    options: dict[str, Any],
    stopped: list[int],
) -> None:
    actor = own_actor()
    given, metrics = state.rulebook, _metrics(options)
    is_new = not state.use_last_rulebook()
    units = Units(folder, state, settings, actor, metrics)
    if options.get("abandon_unit"):
        units.abandon_open_unit()
    units.complete_open_unit(desk.poll)
    state.complete_cuts(actor)
    _install_rules(state, given, is_new, options["rules"])
    desk.put_on_record()
    said = {
        "parse_for": settings.parse_for.name.lower(),
        "subscribers": [list(p) for p in settings.subscriber_prefixes],
        "rulebook": state.rulebook.hash.hex(),
    }
    ref = hashlib.sha256(json.dumps([said, now_ns()]).encode()).hexdigest()[:16]
    state.command("settings", ref, said, actor, now_ns())
    state.deliver()
    # The journal has prefixes as the gate compares them; people read them as they write them.
    said["subscribers"] = [prefix_text(p) for p in settings.subscriber_prefixes]
    click.echo(json.dumps({"watching": str(folder), "state": str(state.folder), **said}))
    sys.stdout.flush()
    once = bool(options.get("once"))
    while not stopped:
        ingested = units.ingest_ready(units.look(settled=once), desk.poll)
        sys.stdout.flush()
        if once and not ingested:
            return
        desk.poll(0.0 if ingested else SECONDS_BETWEEN_LOOKS)
