"""Replay: inputs from the start, or a journal, into a state folder; the same input, the same
hashes.

A replay that was killed is run again with the same words: it reads its inputs from the start,
compares every row with what the journal already has, skips that prefix and goes on; a cut that was
left open is completed. A journal is replayed from its bytes: rows are copied in the order of its
cuts, and store, book and entries are derived from them again.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from pipeline.engine import Engine, Rows
from pipeline.model.batches import STREAMS, CutBatch, RulebookBatch
from pipeline.model.identifiers import Keys
from pipeline.model.settings import EngineSettings
from pipeline.model.tally import Tally
from pipeline.model.words import ParseFor
from pipeline.rulebook.model import Rulebook
from pipeline.rulebook.read import load
from pipeline.run import expected
from pipeline.run.admission import Admission
from pipeline.run.cases import CASE_FILE, CaseError, Cut, load_case, parse_for, parse_prefixes
from pipeline.run.folder import StateError, lock_state
from pipeline.run.ingest import ingest
from pipeline.run.inputs import Facts, InputFiles, PacketFeed, read_facts, sort_files
from pipeline.run.owner import OwnerServer
from pipeline.run.report import ReplayReport, report_of, show_report
from pipeline.run.requests import answer
from pipeline.run.state import State
from pipeline.store.journal import Journal, JournalMismatch
from pipeline.store.keys import create_test_keys, have_keys, kept_seed, load_keys

SYNC_EVERY = 256  # batches of packets between two fsyncs
Progress = Callable[[str], None]


@dataclass(slots=True)
class Plan:
    """What a replay is made of, before anything is opened."""

    title: str
    seed: str  # empty: the state's, drawn when it is made
    settings: EngineSettings
    files: InputFiles
    cuts: tuple[Cut, ...]
    rulebook: Rulebook
    rows: int = 4096
    tally: Tally = field(default_factory=Tally)


def plan_of(
    paths: Sequence[Path],
    rules: Path | None,
    rows: int = 4096,
    options: dict[str, Any] | None = None,
) -> Plan:
    """A plan from a case folder, or from files with `seed`, `parse_for`, `subscribers` in
    `options`.
    """
    options = options or {}
    if len(paths) == 1 and (paths[0] / CASE_FILE).is_file():
        case = load_case(paths[0])
        rulebook = load(rules or case.rules)
        return Plan(
            case.title, case.seed, case.settings, sort_files(case.files), case.cuts, rulebook, rows
        )
    files = sort_files([file for path in paths for file in _files_of(path)])
    if files.captures and not options.get("parse_for"):
        raise CaseError(["captures outside a case need --parse-for consented or listed"])
    settings = EngineSettings(
        parse_for(options["parse_for"]) if options.get("parse_for") else ParseFor.CONSENTED,
        parse_prefixes(options.get("subscribers") or ()),
    )
    seed = options.get("seed") or ""  # what nobody can derive: real input may be replayed, too
    return Plan(paths[0].name, seed, settings, files, (), load(rules), rows)


def case_folder(paths: Sequence[Path]) -> Path:
    """The one case folder among `paths`; CaseError where there is none."""
    if len(paths) != 1 or not (paths[0] / CASE_FILE).is_file():
        raise CaseError([f"--update rewrites the tables of one case; {paths[0]} is none"])
    return paths[0]


def _files_of(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]


def replay(
    plan: Plan,
    state: State,
    progress: Progress | None = None,
    poll: Callable[[], None] | None = None,
) -> ReplayReport:
    """Run a plan into an opened state; give its report."""
    state.journal.resume()
    engine = Engine(plan.rulebook, state.keys, plan.seed.encode(), plan.settings)
    engine.tally = plan.tally
    facts = read_facts(plan.files.texts, plan.tally)
    feed = PacketFeed(plan.files.captures, plan.tally, plan.rows)
    maker = _CutMaker(state, progress)
    batches = 0

    def emit(rows: Rows) -> None:
        nonlocal batches
        state.emit(rows)
        batches += 1
        if batches % SYNC_EVERY == 0:
            state.journal.sync()
            if progress:
                progress(f"{plan.title}: {state.journal.rows('visits'):,} visit rows")
        if poll:
            poll()

    try:
        state.use_rulebook(plan.rulebook, 0)
        state.command("ingest_begin", "replay", _begin(plan), "replay", 0)
        cuts = plan.cuts or (_cut_at_end(facts),)
        ingest(engine, facts, feed, emit, maker.make, cuts)
    except JournalMismatch as error:
        raise _other_input(state, error) from error
    finally:
        feed.close()
    state.command("ingest_end", "replay", {"cuts": maker.number}, "replay", 0)
    state.deliver()
    return report_of(state, plan.tally, facts.faults)


class _CutMaker:
    """Makes cuts in their order and runs accrual at those that are not done yet."""

    def __init__(self, state: State, progress: Progress | None) -> None:
        self.state, self.progress = state, progress
        self.number = 0
        self.made: dict[str, CutBatch] = {}

    def make(self, cut: Cut) -> None:
        self.number += 1
        repeat = self.made[cut.repeat] if cut.repeat else None
        batch = self.state.make_cut(self.number, cut.name, cut.now_ns, repeat)
        self.made[cut.name] = batch
        self.run(batch)

    def run(self, batch: CutBatch) -> None:
        if self.state.book.cut_done(int(batch.number[0])):
            return
        if self.progress:
            self.progress(f"accrual at cut {batch.name.text(0)}")
        self.state.accrue(batch, "replay", self.progress)


def _cut_at_end(facts: Facts) -> Cut:
    """Files without a case get one cut at their end, at the time of their last fact."""
    last = int(facts.received_ns[-1]) if len(facts) else 0
    return Cut("end", None, 0, last)


def _begin(plan: Plan) -> dict[str, Any]:
    return {
        "captures": [path.name for path in plan.files.captures],
        "files": plan.files.fingerprint(),
        "parse_for": plan.settings.parse_for.name.lower(),
        "subscribers": [list(p) for p in plan.settings.subscriber_prefixes],
        "title": plan.title,
    }


def _other_input(state: State, error: JournalMismatch) -> StateError:
    return StateError(
        f"{state.folder} was made from other input, rules or settings, or by another version: "
        f"{error}. Replay into an empty folder."
    )


def replay_journal(
    source: Path, state: State, keys: Keys, progress: Progress | None = None
) -> ReplayReport:
    """Copy a journal cut by cut into `state` and derive everything else again."""
    state.journal.resume()
    journal = Journal(source / "journal", keys, writable=False)
    maker = _CutMaker(state, progress)
    done = dict.fromkeys(STREAMS, 0)

    def copy(until: dict[str, int]) -> None:
        for stream in STREAMS:
            if stream != "cuts" and until.get(stream, 0) > done[stream]:
                for batch in journal.read(stream, done[stream], until[stream], unseal=True):
                    state.emit([(stream, batch)])
                done[stream] = until[stream]

    try:
        for cuts in journal.read("cuts"):
            assert isinstance(cuts, CutBatch)
            for row in range(len(cuts)):
                cut = cuts.slice(row, row + 1)
                copy(json.loads(cut.position.text(0)))
                state.reload_rulebooks()
                state.journal.append("cuts", cut)
                state.journal.seal()
                state.journal.sync()
                maker.run(cut)
        copy(journal.position())
    except JournalMismatch as error:
        raise _other_input(state, error) from error
    finally:
        journal.close()
    state.deliver()
    return report_of(state, Tally(), ())


def replay_command(
    paths: tuple[Path, ...],
    folder: Path,
    rules: Path | None,
    as_json: bool,
    options: dict[str, Any],
) -> int:
    """`mirrorpoint replay`: plan, own the folder, run, print."""
    with terminal_progress() as progress:
        report = _replayed(paths, folder, rules, options, progress)
    click.echo(json.dumps(report.as_dict(), indent=2) if as_json else show_report(report))
    return 0


def _replayed(
    paths: tuple[Path, ...],
    folder: Path,
    rules: Path | None,
    options: dict[str, Any],
    progress: Progress | None,
) -> ReplayReport:
    """Replay a journal, or a case or files, into a state folder."""
    if len(paths) == 1 and (paths[0] / "journal").is_dir():
        keys = load_keys(paths[0], allow_test=True)
        rulebook = first_rulebook(paths[0], keys)
        with lock_state(folder):
            copy_keys(paths[0], folder)
            state = State(folder, keys, rulebook)
            with _owned(state):
                return replay_journal(paths[0], state, keys, progress)
    plan = plan_of(paths, rules, options.get("rows") or 4096, options)
    with open_case_state(folder, plan) as (state, poll):
        report = replay(plan, state, progress, poll)
        if options.get("update"):
            expected.write(case_folder(paths), expected.tables(state))
    return report


@contextlib.contextmanager
def open_case_state(folder: Path, plan: Plan) -> Iterator[tuple[State, Callable[[], None]]]:
    """Own `folder` as the state of a plan: the state, and what to call between two batches."""
    with lock_state(folder):
        plan.seed = plan.seed or _seed_of(folder)
        state = State(folder, case_keys(folder, plan.seed), plan.rulebook)
        with _owned(state) as poll:
            yield state, poll


@contextlib.contextmanager
def _owned(state: State) -> Iterator[Callable[[], None]]:
    """Answer on the socket of `state` meanwhile, close everything afterwards."""
    try:
        admission = Admission(state.folder)
        server = OwnerServer(
            state.folder,
            ask=lambda request: answer(state, request),
            act=lambda request: answer(state, request, replaying=True),
            admit=admission.admit,
        )

        def poll() -> None:
            admission.look()
            server.poll()

        try:
            yield poll
        finally:
            server.close()
    finally:
        state.close()


def _seed_of(folder: Path) -> str:
    """The seed that a state keeps; a new one for a new state, or beside live keys."""
    return (kept_seed(folder) if have_keys(folder) else "") or secrets.token_hex(32)


def case_keys(folder: Path, seed: str) -> Keys:
    """The test keys of a seed in a state folder, made at the first replay."""
    if not have_keys(folder):
        return create_test_keys(folder, seed)
    keys = load_keys(folder, allow_test=True)
    if not keys.test:
        raise StateError(f"{folder} is a live state; replay into another folder")
    if keys != Keys.from_seed(seed):
        raise StateError(
            f"{folder} belongs to a case with another seed; replay into an empty folder"
        )
    return keys


def copy_keys(source: Path, folder: Path) -> None:
    """Give a folder the keys of another, byte for byte."""
    target = folder / "keys"
    if have_keys(folder):
        return
    target.mkdir(mode=0o700, exist_ok=True)
    for path in sorted((source / "keys").iterdir()):
        copy = target / path.name
        copy.touch(mode=0o600)
        copy.write_bytes(path.read_bytes())


def first_rulebook(source: Path, keys: Keys) -> Rulebook:
    """The first rulebook that a journal names."""
    from pipeline.rulebook.read import from_texts

    journal = Journal(source / "journal", keys, writable=False)
    try:
        for batch in journal.read("rulebooks"):
            assert isinstance(batch, RulebookBatch)
            if len(batch):
                return from_texts(json.loads(batch.text.text(0)))
    finally:
        journal.close()
    raise StateError(f"{source}: the journal names no rulebook; nothing has been ingested there")


@contextlib.contextmanager
def terminal_progress() -> Iterator[Progress | None]:
    """Progress on the last line of standard error, if that is a terminal. The line is gone, and the
    cursor back, before anything else is said; an empty text ends it early.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # only a terminal pays for loading it

    status = Console(stderr=True).status("starting")

    def show(text: str) -> None:
        if text:
            status.start()
            status.update(text)
        else:
            status.stop()

    try:
        yield show
    finally:
        status.stop()
