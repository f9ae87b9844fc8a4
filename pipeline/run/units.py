"""Units of input: what lay ready in a watched folder at one look, and how a unit begins and ends.

A unit is announced in the journal before its first row (`ingest_begin` with its files, its rulebook
and the position) and closed after its last (`ingest_end`). What can go wrong with a file as a whole
is found out before the announcement, and the file is left alone: a unit that was announced can be
completed as long as its files are there.

Flows do not survive from unit to unit, visits and trackers do: their state is kept, sealed, beside
the journal when a unit closes. A unit that a crash left open is read again from its files under the
rules it was begun with; its rows are compared with those the journal has and the rest is added.
Where that cannot be, an operator may give the unit up (`ingest_abandoned`): what was written stays
as it is, since it was told to others; its open visits end with their last version, its captures are
not read again, and its text files are, since what is known of them is recognised.

A file counts by name and content: dropped again it is not read again. As long as its size and time
of change stay, its content is not looked at either.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from pipeline.capture.facts import FactsError
from pipeline.capture.recognise import InputKind
from pipeline.engine import Engine, Rows
from pipeline.model.batches import CommandBatch
from pipeline.model.settings import EngineSettings
from pipeline.model.tally import Tally
from pipeline.model.words import BOOK_COMMANDS, MEMBER_FACTS
from pipeline.run.cases import parse_for
from pipeline.run.folder import StateError
from pipeline.run.ingest import ingest
from pipeline.run.inputs import (
    Facts,
    InputError,
    InputFiles,
    PacketFeed,
    first_time,
    read_facts,
    sort_files,
)
from pipeline.run.state import State, now_ns
from pipeline.score.orders import ACTOR
from pipeline.score.orders import KIND as ORDER
from pipeline.store.hot import HotState
from pipeline.store.journal import JournalMismatch
from pipeline.store.runs import INGESTED

if TYPE_CHECKING:
    from pipeline.run.metrics import Metrics

SEED = "unit-seed"
CAPTURES_MAX = 64  # open at a time; further ones are the next unit
# Kinds of commands that text inputs have; the book is asked by who works here (`mirrorpoint book`)
# for all but the last, under their own names, and by inputs for orders that name nobody.
ASKED_FOR = frozenset({*BOOK_COMMANDS, MEMBER_FACTS})
WAY_OUT = (
    "or give the unit up by starting once with --abandon-unit: what was written of it stays, "
    "its captures are not read again, its other files are"
)
NO_FACTS = read_facts((), Tally())
About = tuple[int, int]  # size and time of change of a file
Poll = Callable[[], None]


@dataclass(slots=True)
class _Unit:
    """Files that can be read, with what was read of them so far."""

    files: InputFiles
    facts: Facts
    tally: Tally
    hashes: dict[Path, str]
    about: dict[str, About]

    @property
    def fingerprint(self) -> list[tuple[str, str]]:
        paths = [*self.files.captures, *(path for path, _ in self.files.texts)]
        return [(path.name, self.hashes[path]) for path in paths]


class Units:
    """Ingests units of dropped files into a live state."""

    def __init__(
        self,
        folder: Path,
        state: State,
        settings: EngineSettings,
        actor: str,
        metrics: Metrics | None = None,
    ) -> None:
        self.folder, self.state, self.settings, self.actor = folder, state, settings, actor
        self.metrics = metrics
        self.hot = HotState(state.folder / "hot", state.keys)
        self.seen: dict[str, About] = {}
        self.passed: dict[str, About] = {}  # files that are done with, or were refused
        self.refused: dict[str, int] = {}  # of them those the system did not let us read
        self.done: set[tuple[str, str]] = set()
        self.units = 0
        self.open_unit: dict[str, Any] | None = None
        self._read_commands()

    def _read_commands(self) -> None:
        """What the journal says of earlier units."""
        for batch in self.state.journal.read("commands"):
            assert isinstance(batch, CommandBatch)
            for row in range(len(batch)):
                kind = batch.kind.text(row)
                if kind == "ingest_begin":
                    self.units += 1
                    self.open_unit = json.loads(batch.body.text(row))
                elif kind in ("ingest_end", "ingest_abandoned"):
                    self._remember(json.loads(batch.body.text(row)))

    def _remember(self, end: dict[str, Any]) -> None:
        self.done |= {(name, sha) for name, sha in end["files"]}
        self.passed |= {name: (size, changed) for name, size, changed in end.get("found", ())}
        self.open_unit = None

    def look(self, settled: bool = False) -> list[Path]:
        """Files that are ready: whole, unchanged since the last look (or `settled`), and new."""
        ready: list[Path] = []
        found: dict[str, About] = {}
        for path in sorted(self.folder.iterdir()):
            if path.name.startswith(".") or path.name.endswith(".part"):
                continue
            about = _about(path)
            if about is None:
                continue
            found[path.name] = about
            settled_now = settled or self.seen.get(path.name) == about
            if settled_now and not self._is_passed(path, about):
                ready.append(path)
        self.seen = found
        return ready

    def _is_passed(self, path: Path, about: About) -> bool:
        """Is it done with, or refused and as it was then? Rights that were mended are a change."""
        refused = self.refused.get(path.name)
        if refused is not None and refused != _inode_changed(path):
            del self.refused[path.name]
            self.passed.pop(path.name, None)
        return self.passed.get(path.name) == about

    def ingest_ready(self, paths: list[Path], poll: Poll) -> int:
        """Ingest a unit of these files; gives how many were new.

        At most CAPTURES_MAX captures are, those with the earliest packets; all other files are.
        """
        unit = self._gather(paths)
        if unit is None:
            return 0
        feed = PacketFeed(unit.files.captures, unit.tally)
        try:
            self._ingest(self._begin(unit), unit, feed, _Commands(None), poll)
        finally:
            feed.close()
        return len(unit.fingerprint)

    def complete_open_unit(self, poll: Poll) -> None:
        """Go on with the unit that a crash left open, under the rules it was begun with."""
        begun = self.open_unit
        if begun is None:
            return
        wanted = [(self.folder / name, sha) for name, sha in begun["files"]]
        changed = [str(p) for p, sha in wanted if not p.is_file() or _sha256(p) != sha]
        if changed:
            raise StateError(
                "the last unit was not finished, and these of its files are gone or changed: "
                f"{', '.join(changed)}. Put them back and start again, {WAY_OUT}."
            )
        if "rulebook" in begun:
            self.state.rulebook = self.state.rulebooks[bytes.fromhex(begun["rulebook"])]
        tally = Tally()
        about = {path.name: _about(path) or (0, 0) for path, _ in wanted}
        try:
            files = sort_files([path for path, _ in wanted])
            facts = read_facts(files.texts, tally)
        except (FactsError, InputError) as error:
            raise StateError(
                f"the last unit was not finished, and cannot be: {error}. "
                f"Use the version that began it, {WAY_OUT}."
            ) from error
        unit = _Unit(files, facts, tally, dict(wanted), about)
        feed = PacketFeed(files.captures, tally)
        try:
            self._ingest(begun, unit, feed, _Commands(self._written_commands(begun)), poll)
        except JournalMismatch as error:
            raise StateError(
                f"unit {begun['unit']} reads differently than before: {error}. "
                f"Use the version that began it, {WAY_OUT}."
            ) from error
        finally:
            feed.close()

    def abandon_open_unit(self) -> None:
        """Give up the unit that was left open. Nothing that was written of it is taken back.

        Its visits might be told otherwise than before if they went on from an earlier state, so no
        visit does: all that were open end with their last version.
        """
        begun = self.open_unit
        if begun is None:
            return
        captures = set(begun["captures"])
        body = {
            "files": [[name, sha] for name, sha in begun["files"] if name in captures],
            "unit": begun["unit"],
        }
        self.state.command("ingest_abandoned", f"unit-{begun['unit']}", body, self.actor, now_ns())
        self.state.deliver()
        self.hot.keep_only(set())
        self._remember(body)
        click.echo(json.dumps({"unit": begun["unit"], "abandoned": sorted(captures)}))

    # From files to a unit

    def _gather(self, paths: list[Path]) -> _Unit | None:
        """The new ones among these files; what cannot be read as a whole is refused."""
        about = {path.name: found for path in paths if (found := _about(path)) is not None}
        unit = _Unit(InputFiles((), ()), NO_FACTS, Tally(), {}, about)
        captures: list[tuple[int, Path]] = []
        texts: list[tuple[Path, InputKind]] = []
        for path in [path for path in paths if path.name in about]:
            try:
                files = sort_files([path])
                ranked = len(about) > CAPTURES_MAX
                captures += [(first_time(p) if ranked else 0, p) for p in files.captures]
                if files.texts and self._is_new(path, unit):
                    texts += files.texts
            except (InputError, OSError) as error:
                self._refuse(path, unit, error)
        chosen: list[Path] = []
        for _, path in sorted(captures):
            if len(chosen) < CAPTURES_MAX and self._is_new(path, unit):
                chosen.append(path)
        self._read_texts(texts, unit)
        unit.files = InputFiles(tuple(chosen), unit.files.texts)
        return unit if chosen or unit.files.texts else None

    def _is_new(self, path: Path, unit: _Unit) -> bool:
        """Can it be read, and was this content never ingested under this name?"""
        try:
            unit.hashes[path] = _sha256(path)
        except OSError as error:
            self._refuse(path, unit, error)
            return False
        known = (path.name, unit.hashes[path]) in self.done
        if known:
            self.passed[path.name] = unit.about[path.name]
        return not known

    def _read_texts(self, texts: list[tuple[Path, InputKind]], unit: _Unit) -> None:
        """Read text files into the unit; those whose first lines cannot be used are refused."""
        try:
            unit.facts = read_facts(texts, unit.tally)
            unit.files = InputFiles((), tuple(texts))
        except (FactsError, OSError):
            good = []
            for text in texts:
                try:
                    read_facts([text], Tally())
                    good.append(text)
                except (FactsError, OSError) as error:
                    self._refuse(text[0], unit, error)
            unit.tally = Tally()
            self._read_texts(good, unit)

    def _refuse(self, path: Path, unit: _Unit, error: Exception) -> None:
        """Leave a file alone until it, or what hindered reading it, has changed."""
        self.passed[path.name] = unit.about[path.name]
        if isinstance(error, OSError):
            self.refused[path.name] = _inode_changed(path)
        for problem in str(error).splitlines():
            click.echo(f"left alone: {problem}", err=True)

    # From a unit to the journal

    def _begin(self, unit: _Unit) -> dict[str, Any]:
        """Announce a unit: durable before its first row."""
        settings, journal = self.settings, self.state.journal
        self.state.take_due_rulebook(now_ns())
        self.units += 1
        self.hot.save(SEED, {"seed": np.frombuffer(secrets.token_bytes(32), np.uint8)})
        begun = {
            "captures": [path.name for path in unit.files.captures],
            "files": unit.fingerprint,
            "parse_for": settings.parse_for.name.lower(),
            "position": journal.position(),
            "rulebook": self.state.rulebook.hash.hex(),
            "subscribers": [list(p) for p in settings.subscriber_prefixes],
            "unit": self.units,
        }
        self.state.command("ingest_begin", f"unit-{self.units}", begun, self.actor, now_ns())
        journal.sync()
        return begun

    def _ingest(
        self, begun: dict[str, Any], unit: _Unit, feed: PacketFeed, commands: _Commands, poll: Poll
    ) -> None:
        """Push the unit through an engine as it was at the unit's beginning."""
        state = self.state
        engine = self._engine(begun)
        engine.tally = unit.tally
        if commands.resumed:
            # Only what a unit writes is compared: a job may have made cuts meanwhile, and who was
            # shown a login stands among the commands.
            begin = {name: begun["position"][name] for name in INGESTED}
            state.journal.resume(state.journal.position() | begin)

        def emit(rows: Rows) -> None:
            state.emit(commands.unwritten(rows))
            if not state.journal.resuming:
                poll()

        ingest(engine, unit.facts, feed, emit, lambda _cut: None, last=False)
        left = sorted(state.journal.unmatched()) or ["commands"] * commands.left
        if left:
            raise JournalMismatch(left[0], state.journal.rows(left[0]), ())
        self._close(begun, unit, engine)

    def _engine(self, begun: dict[str, Any]) -> Engine:
        """An engine as it was at the beginning of a unit."""
        prefixes = tuple((int(a), int(b), int(c)) for a, b, c in begun["subscribers"])
        seed = self.hot.load(SEED)
        if seed is None:
            raise StateError(
                f"{self.hot.folder}: the seed of the unit that was not finished is missing. "
                f"Take it from your backup, {WAY_OUT}."
            )
        engine = Engine(
            self.state.rulebook,
            self.state.keys,
            seed["seed"].tobytes(),
            EngineSettings(parse_for(begun["parse_for"]), prefixes),
        )
        read, position = self.state.journal.read, begun["position"]
        engine.remember(
            read("bindings", 0, position["bindings"], unseal=True),
            read("basis", 0, position["basis"], unseal=True),
            read("purchases", 0, position["purchases"]),
            read("decisions", 0, position["decisions"]),
        )
        snapshot = self.hot.load(_snapshot(begun["unit"] - 1))
        if snapshot is not None:
            engine.restore(snapshot)
        return engine

    def _close(self, begun: dict[str, Any], unit: _Unit, engine: Engine) -> None:
        """Keep the state of visits under the unit's number, then write the end of the unit."""
        number = begun["unit"]
        names = [name for name, _ in begun["files"]]
        self.hot.save(_snapshot(number), engine.snapshot())
        found = [[name, *unit.about[name]] for name in names]
        end = {"files": begun["files"], "found": found, "unit": number}
        self.state.command("ingest_end", f"unit-{number}", end, self.actor, now_ns())
        self.state.deliver()
        self.hot.keep_only({_snapshot(number)})
        self._remember(end)
        click.echo(json.dumps({"unit": number, "files": names, **unit.tally.as_dict()}))
        if self.metrics is not None:
            self.metrics.add(unit.tally)
        for fault in unit.facts.faults[:20]:
            click.echo(str(fault), err=True)

    def _written_commands(self, begun: dict[str, Any]) -> list[tuple[bytes, bool]]:
        """Commands of kinds that inputs have, written since the unit began; and whether only an
        input can have written it.
        """
        found: list[tuple[bytes, bool]] = []
        for batch in self.state.journal.read("commands", begun["position"]["commands"]):
            assert isinstance(batch, CommandBatch)
            columns = batch.command_id.tolist(), batch.kind.to_list(), batch.actor.to_list()
            for identifier, kind, actor in zip(*columns, strict=True):
                if kind in ASKED_FOR:
                    by_input = kind == MEMBER_FACTS or (kind == ORDER and actor == ACTOR)
                    found.append((identifier, by_input))
        return found


class _Commands:
    """Commands of a unit that the journal has already; those of others may stand between them."""

    def __init__(self, written: list[tuple[bytes, bool]] | None) -> None:
        self.resumed = written is not None
        self._written = written or []
        self._at = 0

    @property
    def left(self) -> int:
        """How many did not come again yet."""
        return sum(sure for _, sure in self._written[self._at :])

    def unwritten(self, rows: Rows) -> Rows:
        """The rows but for commands that are written. Raises JournalMismatch where one differs."""
        fresh: Rows = []
        for stream, batch in rows:
            known = 0
            if isinstance(batch, CommandBatch):
                for identifier in batch.command_id.tolist():
                    if not self._is_written(stream, identifier, known):
                        break
                    known += 1
            if known < len(batch):
                fresh.append((stream, batch.slice(known, len(batch))))
        return fresh

    def _is_written(self, stream: str, identifier: bytes, row: int) -> bool:
        """Is it the next one of an input? What comes before the first that is not, is written."""
        for at in range(self._at, len(self._written)):
            found, sure = self._written[at]
            if found == identifier:
                self._at = at + 1
                return True
            if sure:
                raise JournalMismatch(stream, row, ("command_id",))
        self._at = len(self._written)
        return False


def _snapshot(unit: int) -> str:
    return f"visits-{unit}"


def _about(path: Path) -> About | None:
    """Size and time of change of a plain file; None for anything else, or where it is not to be
    found: gone meanwhile, or a link that leads nowhere or in circles.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def _inode_changed(path: Path) -> int:
    """When its rights, owner or content were last changed (ns); 0 where nobody can say."""
    try:
        return path.stat().st_ctime_ns
    except OSError:
        return 0


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
