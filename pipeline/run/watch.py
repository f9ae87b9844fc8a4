"""`mirrorpoint run --watch DIR`: own a live state and ingest what is dropped into a folder.

Everything that lies ready at one look is one unit of input. A unit is announced in the journal
before its first row (`ingest_begin` with its files and the position) and closed after its last.
Flows do not survive from unit to unit, visits and trackers do: their state is written beside the
journal when a unit closes. A unit that a crash left open is read again from its files; its rows are
compared with those the journal has and the rest is added. A file counts by name and content:
dropped again it is not read again.

A file has to be whole when it appears: write it under a name that starts with a dot or ends in
`.part`, then rename it. As a second net, a file that grew between two looks is left for the next.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from pipeline.engine import Engine, Rows
from pipeline.model.batches import CommandBatch
from pipeline.model.settings import EngineSettings
from pipeline.model.tally import Tally
from pipeline.rulebook.read import load
from pipeline.run.cases import parse_for, parse_prefix
from pipeline.run.folder import StateError, lock_state
from pipeline.run.ingest import ingest
from pipeline.run.inputs import InputError, PacketFeed, read_facts, sort_files
from pipeline.run.owner import OwnerServer
from pipeline.run.requests import answer
from pipeline.run.state import State, now_ns
from pipeline.store.journal import JournalMismatch
from pipeline.store.keys import create_live_keys, have_keys, load_keys

SECONDS_BETWEEN_LOOKS = 1.0
SEED = "unit.seed"


class Watcher:
    """Ingests units of dropped files into a live state."""

    def __init__(self, folder: Path, state: State, settings: EngineSettings, actor: str) -> None:
        self.folder, self.state, self.settings, self.actor = folder, state, settings, actor
        self.hot = state.folder / "hot"
        self.hot.mkdir(mode=0o700, exist_ok=True)
        self.seen: dict[str, tuple[int, int]] = {}
        self.done: set[tuple[str, str]] = set()
        self.refused: set[tuple[str, int, int]] = set()
        self.units = 0
        self.open_unit: dict[str, Any] | None = None
        self._read_commands()

    def _read_commands(self) -> None:
        """What the journal says of earlier units."""
        for batch in self.state.journal.read("commands"):
            assert isinstance(batch, CommandBatch)
            for row in range(len(batch)):
                kind, body = batch.kind.text(row), json.loads(batch.body.text(row))
                if kind == "ingest_begin":
                    self.units += 1
                    self.open_unit = body
                elif kind == "ingest_end":
                    self.done |= {(name, sha) for name, sha in body["files"]}
                    self.open_unit = None

    def look(self, settled: bool = False) -> list[Path]:
        """Files that are ready: whole, unchanged since the last look (or `settled`), and new."""
        ready: list[Path] = []
        found: dict[str, tuple[int, int]] = {}
        for path in sorted(self.folder.iterdir()):
            if path.name.startswith(".") or path.name.endswith(".part") or not path.is_file():
                continue
            about = path.stat()
            found[path.name] = (about.st_size, about.st_mtime_ns)
            if (path.name, *found[path.name]) in self.refused:
                continue
            if settled or self.seen.get(path.name) == found[path.name]:
                ready.append(path)
        self.seen = found
        return ready

    def ingest_ready(self, paths: list[Path], poll: Callable[[], None]) -> int:
        """Ingest a unit of these files; gives how many were new."""
        files = []
        for path in paths:
            try:
                sort_files([path])
            except InputError as error:
                self._refuse(path, error)
                continue
            if (path.name, _sha256(path)) not in self.done:
                files.append(path)
        if files:
            self._ingest(files, None, poll)
        return len(files)

    def complete_open_unit(self, poll: Callable[[], None]) -> None:
        """Go on with the unit that a crash left open."""
        if self.open_unit is None:
            return
        wanted = [(self.folder / name, sha) for name, sha in self.open_unit["files"]]
        changed = [str(p) for p, sha in wanted if not p.is_file() or _sha256(p) != sha]
        if changed:
            raise StateError(
                "the last unit was not finished, and these of its files are gone or changed: "
                f"{', '.join(changed)}. Put them back and start again."
            )
        self._ingest([path for path, _ in wanted], self.open_unit, poll)

    def _ingest(
        self, paths: list[Path], begun: dict[str, Any] | None, poll: Callable[[], None]
    ) -> None:
        state, tally = self.state, Tally()
        files = sort_files(paths)
        settings = self.settings
        if begun is not None:
            prefixes = tuple((int(a), int(b), int(c)) for a, b, c in begun["subscribers"])
            settings = EngineSettings(parse_for(begun["parse_for"]), prefixes)
        else:
            (self.hot / SEED).write_bytes(secrets.token_bytes(32))
            (self.hot / SEED).chmod(0o600)
            self.units += 1
            begun = {
                "captures": [path.name for path in files.captures],
                "files": files.fingerprint(),
                "parse_for": settings.parse_for.name.lower(),
                "position": state.journal.position(),
                "subscribers": [list(p) for p in settings.subscriber_prefixes],
                "unit": self.units,
            }
            state.command("ingest_begin", f"unit-{self.units}", begun, self.actor, now_ns())
            state.journal.sync()
        position = begun["position"] | {"commands": begun["position"]["commands"] + 1}
        engine = self._engine(position, begun["unit"] - 1, settings)
        engine.tally = tally
        state.journal.resume(position)
        feed = PacketFeed(files.captures, tally)

        def emit(rows: Rows) -> None:
            state.emit(rows)
            if not state.journal.resuming:
                poll()

        try:
            facts = read_facts(files.texts, tally)
            ingest(engine, facts, feed, emit, lambda _cut: None, last=False)
        except JournalMismatch as error:
            raise StateError(f"unit {self.units} reads differently than before: {error}") from error
        finally:
            feed.close()
        self._close(begun, engine)
        told = {"unit": self.units, "files": [p.name for p in paths], **tally.as_dict()}
        click.echo(json.dumps(told))
        for fault in facts.faults[:20]:
            click.echo(str(fault), err=True)

    def _engine(self, position: dict[str, int], before: int, settings: EngineSettings) -> Engine:
        """An engine as it was at the beginning of a unit: `position`, after unit `before`."""
        state = self.state
        engine = Engine(state.rulebook, state.keys, (self.hot / SEED).read_bytes(), settings)
        read = state.journal.read
        engine.remember(
            read("bindings", 0, position["bindings"], unseal=True),
            read("basis", 0, position["basis"], unseal=True),
            read("purchases", 0, position["purchases"]),
        )
        snapshot = self._snapshot(before)
        if snapshot.is_file():
            with np.load(snapshot, allow_pickle=False) as arrays:
                engine.restore(dict(arrays))
        return engine

    def _snapshot(self, unit: int) -> Path:
        return self.hot / f"visits-{unit}.npz"

    def _close(self, begun: dict[str, Any], engine: Engine) -> None:
        """Write the state of visits under the unit's number, then the end of the unit."""
        unit = begun["unit"]
        fresh = self.hot / ".visits.npz"
        with open(fresh, "wb") as file:
            arrays: dict[str, Any] = dict(engine.snapshot())
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self._snapshot(unit))
        end = {"files": begun["files"], "unit": unit}
        self.state.command("ingest_end", f"unit-{unit}", end, self.actor, now_ns())
        self.state.deliver()
        for old in self.hot.glob("visits-*.npz"):
            if old != self._snapshot(unit):
                old.unlink()
        (self.hot / SEED).unlink(missing_ok=True)
        self.done |= {(name, sha) for name, sha in begun["files"]}
        self.open_unit = None

    def _refuse(self, path: Path, error: InputError) -> None:
        about = path.stat()
        self.refused.add((path.name, about.st_size, about.st_mtime_ns))
        for problem in error.problems:
            click.echo(f"left alone: {problem}", err=True)


def watch_command(
    folder: Path, state_folder: Path, rules: Path | None, options: dict[str, Any]
) -> int:
    """`mirrorpoint run --watch DIR`: until stopped, or once."""
    settings = EngineSettings(
        parse_for(options["parse_for"]),
        tuple(parse_prefix(p) for p in options.get("subscribers") or ()),
    )
    rulebook = load(rules)
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, _frame: stopped.append(got))
    with lock_state(state_folder):
        if not have_keys(state_folder):
            create_live_keys(state_folder)
        keys = load_keys(state_folder, allow_test=False)
        state = State(state_folder, keys, rulebook)
        try:
            server = OwnerServer(
                state_folder, lambda r: answer(state, r), lambda r: answer(state, r)
            )
            try:
                _watch(state, settings, folder, server, bool(options.get("once")), stopped)
            finally:
                server.close()
        finally:
            state.close()
    return 0


def _watch(
    state: State,
    settings: EngineSettings,
    folder: Path,
    server: OwnerServer,
    once: bool,
    stopped: list[int],
) -> None:
    actor = getpass.getuser()
    rulebook = state.rulebook
    watcher = Watcher(folder, state, settings, actor)
    state.use_last_rulebook()
    watcher.complete_open_unit(server.poll)
    state.complete_cuts(actor)
    state.use_rulebook(rulebook, now_ns())
    said = {
        "parse_for": settings.parse_for.name.lower(),
        "subscribers": [list(p) for p in settings.subscriber_prefixes],
        "rulebook": state.rulebook.hash.hex(),
    }
    ref = hashlib.sha256(json.dumps([said, now_ns()]).encode()).hexdigest()[:16]
    state.command("settings", ref, said, actor, now_ns())
    state.deliver()
    click.echo(json.dumps({"watching": str(folder), "state": str(state.folder), **said}))
    sys.stdout.flush()
    while not stopped:
        watcher.ingest_ready(watcher.look(settled=once), server.poll)
        sys.stdout.flush()
        if once:
            return
        server.poll(SECONDS_BETWEEN_LOOKS)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
