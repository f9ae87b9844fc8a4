"""What the book keeps beside the points: versions of rules with their text, runs, and cuts done.

TOML files are the truth for partners and policies; the book imports what it was told by version, so
that an entry's rule can be shown as it was, years after the file changed. Versions are hashes of
parsed content and never change; importing a rulebook again adds nothing.

Several programs may write the same row. Who writes looks whether it is there in the transaction
that writes it, which has locked the others out; a look before that could be true no more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import insert, select, update

from pipeline.ledger.terms import terms_of
from pipeline.model.batches import CutBatch
from pipeline.model.identifiers import NO_ID
from pipeline.rulebook.model import Location, Rulebook
from pipeline.store import book_schema as tables
from pipeline.store.book_pages import put_terms
from pipeline.store.book_schema import Session

# Texts that databases do not take: NUL (PostgreSQL), and half a pair, as of a file's odd name.
UNSTORABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class RuleVersion:
    """One parsed rule: what it is of, where it was first seen, and the text of its file."""

    version: bytes
    kind: str
    id: str
    rulebook_hash: bytes
    file: str
    line: int
    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job; `ended_ns` is 0 and `outcome` empty while it has not ended."""

    run_id: bytes
    kind: str
    actor: str
    rulebook_hash: bytes = NO_ID
    started_ns: int = 0
    ended_ns: int = 0
    outcome: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class DoneCut:
    """A cut whose job is done; `position` is JSON, as in the stream of cuts."""

    number: int
    name: str
    now_ns: int
    position: str
    repeat_of: int
    run_id: bytes


class Register:
    """Reads and writes these tables through the book's sessions."""

    def __init__(self, read: Session, write: Session) -> None:
        self._read, self._write = read, write

    def import_rulebook(self, rulebook: Rulebook) -> None:
        """Keep the text of a rulebook and every version in it that is not there yet."""
        table = tables.rule_versions
        with self._write() as connection:
            known = select(tables.rulebooks.c.rulebook_hash).where(
                tables.rulebooks.c.rulebook_hash == rulebook.hash
            )
            if connection.execute(known).first() is not None:
                return
            row: dict[str, Any] = {
                "rulebook_hash": rulebook.hash,
                "text": rulebook.text(),
                "terms_id": put_terms(connection, terms_of(rulebook.programme)),
            }
            connection.execute(insert(tables.rulebooks), storable(row))
            named = select(table.c.version, table.c.kind, table.c.id)
            there = {tuple(found) for found in connection.execute(named)}
            fresh = {(v.version, v.kind, v.id): v for v in versions_of(rulebook)}
            rows = [storable(asdict(v)) for at, v in sorted(fresh.items()) if at not in there]
            if rows:
                connection.execute(insert(table), rows)

    def rulebook_text(self, rulebook_hash: bytes) -> str | None:
        """The canonical text of a rulebook."""
        table = tables.rulebooks
        with self._read() as connection:
            return connection.execute(
                select(table.c.text).where(table.c.rulebook_hash == rulebook_hash)
            ).scalar()

    def rule_version(self, version: bytes) -> RuleVersion | None:
        """A version; where several rules share one parsed content, the first by kind and id."""
        table = tables.rule_versions
        with self._read() as connection:
            rows = connection.execute(select(table).where(table.c.version == version)).all()
        # Put in order here: how a database orders text is its own affair, and its owner's.
        return min((RuleVersion(*row) for row in rows), key=lambda v: (v.kind, v.id), default=None)

    def put_run(self, run: Run) -> None:
        """Write down a run under its id, in place of what was known of it."""
        table = tables.runs
        with self._write() as connection:
            values = storable(asdict(run))
            at = table.c.run_id == run.run_id
            if connection.execute(select(table.c.run_id).where(at)).first() is None:
                connection.execute(insert(table), values)
            else:
                connection.execute(update(table).where(at), values)

    def runs(self) -> list[Run]:
        """All runs, by their beginning, then by id."""
        table = tables.runs
        with self._read() as connection:
            rows = connection.execute(select(table).order_by(table.c.started_ns, table.c.run_id))
            return [Run(*row) for row in rows]

    def finish_cut(self, cut: CutBatch, run_id: bytes) -> None:
        """Note a cut (one row) whose job is done; the first to do so is the one that is noted."""
        assert len(cut) == 1, "one cut at a time"
        table, number = tables.cuts, int(cut.number[0])
        values: dict[str, Any] = {
            "number": number,
            "name": cut.name.text(0),
            "now_ns": int(cut.now_ns[0]),
            "position": cut.position.text(0),
            "repeat_of": int(cut.repeat_of[0]),
            "run_id": run_id,
        }
        with self._write() as connection:
            there = select(table.c.number).where(table.c.number == number)
            if connection.execute(there).first() is None:
                connection.execute(insert(table), storable(values))

    def cut_done(self, number: int) -> bool:
        """Is this cut among those done?"""
        table = tables.cuts
        with self._read() as connection:
            found = connection.execute(select(table.c.number).where(table.c.number == number))
            return found.first() is not None

    def last_cut(self) -> DoneCut | None:
        """The done cut with the largest number."""
        table = tables.cuts
        with self._read() as connection:
            row = connection.execute(select(table).order_by(table.c.number.desc()).limit(1)).first()
        return None if row is None else DoneCut(*row)


def storable(values: dict[str, Any]) -> dict[str, Any]:
    """A row whose texts every database takes."""
    return {
        name: UNSTORABLE.sub("\ufffd", value) if isinstance(value, str) else value
        for name, value in values.items()
    }


def versions_of(rulebook: Rulebook) -> Iterator[RuleVersion]:
    """Everything in a rulebook that has a version of its own."""

    def version(kind: str, name: str, value: bytes, at: Location) -> RuleVersion:
        text = rulebook.files.get(at.file, "")
        return RuleVersion(value, kind, name, rulebook.hash, at.file, at.line, at.key, text)

    programme, policy = rulebook.programme, rulebook.policy
    yield version("programme", programme.id, programme.version, programme.location)
    yield version("policy", policy.id, policy.version, policy.location)
    for tracker in rulebook.trackers:
        yield version("tracker", tracker.id, tracker.version, tracker.location)
    for partner in rulebook.partners:
        yield version("partner", partner.id, partner.version, partner.location)
        for accrual in partner.accruals:
            name = f"{partner.id}/{accrual.id}"
            yield version("accrual", name, accrual.version, accrual.location)
