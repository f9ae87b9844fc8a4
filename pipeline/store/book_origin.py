"""Is what the book holds what made it? Lots, pending items, terms, rule versions and runs.

A pending item keeps what the posting said that opened it. A lot that stands for points has the
rule, the contract and the time of its conversion's newest target, and the terms of the rulebook
under which its first points were booked. Terms and rule versions are read again from the text of
their rulebook, whose hash is its name. A run or rulebook that postings, commands, cuts or runs name
has to be there; a book that never heard of any (no rulebook, no run, no cut) names none.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Table, select

from pipeline.ledger.commands import made
from pipeline.ledger.lots import lot_id
from pipeline.ledger.targets import Target
from pipeline.ledger.terms import Terms, expires_ns, terms_of
from pipeline.ledger.transfers import CONVERSION
from pipeline.model.identifiers import NO_ID, id_text
from pipeline.rulebook.model import Programme, Rulebook, RulebookError, files_hash
from pipeline.rulebook.read import from_texts
from pipeline.store import book_schema as tables
from pipeline.store.book_register import RuleVersion, versions_of
from pipeline.store.book_schema import AnyRow
from pipeline.store.book_walk import Folds

Say = Callable[[str], None]
SOURCES = ("conversion", "manual", "migrate", "exchange")
SOURCE_OF = {"adjust": "manual", "migrate": "migrate", "convert_in": "exchange"}  # by command


class Origins:
    """Compares rows with their origin, given the folds of a walk; `say` takes the findings."""

    def __init__(
        self, connection: Connection, key: bytes, programme: Programme, folds: Folds, say: Say
    ) -> None:
        self._connection, self._folds, self._say = connection, folds, say
        self._key, self._programme = key, programme
        r = tables.requests
        issuing = select(r).where(r.c.kind.in_([*SOURCE_OF, "transfer"]))
        self._issuers = {row.request_id: row for row in connection.execute(issuing)}
        self._terms = {row[0]: Terms(*row[1:]) for row in self._rows(tables.terms)}
        self._passed: list[tuple[AnyRow, bool]] = []  # lots that came by a transfer
        self._givers: dict[bytes, tuple[AnyRow, bool]] = {}
        self._terms_of_rulebook: dict[bytes, int] = {}
        self._lots: dict[tuple[bytes, bytes], AnyRow] = {}

    def rulebooks(self) -> None:
        """Every text is the one its hash names; terms and rule versions are as it says."""
        terms = {row[0]: Terms(*row[1:]) for row in self._rows(tables.terms)}
        versions = {(row[0], row[1], row[2]): row for row in self._rows(tables.rule_versions)}
        said: set[Terms] = set()
        all_read = True
        for rulebook_hash, text, number in self._rows(tables.rulebooks):
            self._terms_of_rulebook[rulebook_hash] = number
            rulebook = self._read(rulebook_hash, text)
            if rulebook is None:
                all_read = False
                continue
            expected = terms_of(rulebook.programme)
            said.update(expected._replace(source=source) for source in SOURCES)
            name = f"rulebook {id_text(rulebook_hash)}"
            if number not in terms:
                self._say(f"{name} has terms number {number}, which are none")
            elif terms[number] != expected:
                other = _other(terms[number], expected)
                self._say(f"terms number {number} are not those of {name}: {other}")
            self._versions(rulebook, versions)
        for number, found in sorted(terms.items()):
            known = found in said or number in self._terms_of_rulebook.values()
            if said and all_read and not known:
                self._say(f"terms number {number} are those of no rulebook")

    def _read(self, rulebook_hash: bytes, text: str) -> Rulebook | None:
        """The rulebook of a text; None for another text, and for one no longer readable."""
        try:
            files = json.loads(text)
            if files_hash(files) != rulebook_hash:
                raise ValueError("another text")
        except (ValueError, TypeError, AttributeError):
            self._say(f"the text of rulebook {id_text(rulebook_hash)} is not the one of that hash")
            return None
        try:
            return from_texts(files)
        except RulebookError:
            return None

    def _versions(self, rulebook: Rulebook, stored: dict[tuple[Any, ...], AnyRow]) -> None:
        for version in versions_of(rulebook):
            name = f"rule version {id_text(version.version)} ({version.kind} {version.id})"
            row = stored.get((version.version, version.kind, version.id))
            if row is None:
                self._say(f"{name} of rulebook {id_text(rulebook.hash)} is gone")
            elif row.rulebook_hash == rulebook.hash and RuleVersion(*row) != version:
                self._say(f"{name} is not as rulebook {id_text(rulebook.hash)} has it")

    def pending(self, item: AnyRow, key: bytes) -> None:
        """A pending item of a conversion against the posting that opened it."""
        opened = self._folds.opened.get(key, ())
        name = f"pending item {item.generation} of conversion {id_text(key)}"
        if not 1 <= item.generation <= len(opened):
            self._say(f"{name} was opened by no posting")
            return
        made = opened[item.generation - 1]
        held = (item.subscriber_id, item.contract_version, item.rule_version, item.event_ns)
        names = ("subscriber_id", "contract_version", "rule_version", "event_ns")
        wrong = [n for n, ours, theirs in zip(names, held, made, strict=False) if ours != theirs]
        if wrong:
            self._say(f"{name} has another {_listed(wrong)} than the posting that opened it")
        self._check_terms(name, item.terms_id, made[-1])

    def lot(self, lot: AnyRow, first_posting: int, born: AnyRow | None) -> None:
        """A lot against the posting that first put points on it; its target comes later."""
        name = f"lot {id_text(lot.lot_id)}"
        if lot.spendable_from_ns != lot.earned_ns:
            self._say(f"{name} may be spent from another time than it was earned at")
        self._givers[lot.lot_id] = lot, born is not None
        if lot.parent_lot_id != NO_ID:
            self._passed.append((lot, born is not None))
        elif lot.cause_kind == CONVERSION:
            self._check_terms(name, lot.terms_id, self._folds.rulebook_of.get(first_posting, NO_ID))
            if lot.conversion_key != lot.cause_id:
                self._say(f"{name} traces to another conversion than its own")
            if lot.amount:
                self._lots[lot.cause_id, lot.subscriber_id] = lot
        else:
            self._issued(lot, name, born or lot, self._folds.rule_of.get(first_posting, NO_ID))

    def _issued(self, lot: AnyRow, name: str, first: AnyRow, rule_version: bytes) -> None:
        """A lot that a person, an import or an exchange issued, against the command for it."""
        asked, terms = self._issuers.get(lot.cause_id), self._terms.get(lot.terms_id)
        source = None if asked is None else SOURCE_OF.get(asked.kind)
        if asked is None or source is None:
            self._say(f"{name} was issued by no command that issues points")
            return
        command = made(asked.request_id, asked.kind, "", asked.subscriber_id, asked.points,
                       asked.event_ns, asked.body, "")  # fmt: skip
        imported = asked.kind == "migrate"
        earned_ns = command.number("earned", asked.event_ns) if imported else asked.event_ns
        until_ns = command.number("expires") if imported else 0
        if terms is not None and not until_ns:
            until_ns = dated_by(terms.expiry_policy, earned_ns, self._programme.timezone)
        wrong = [
            column
            for column, ours, theirs in (
                ("conversion_key", lot.conversion_key, NO_ID),
                ("contract_version", lot.contract_version, ""),
                ("rule_version", lot.rule_version, rule_version),
                ("source", terms and terms.source, source),
                ("earned_ns", lot.earned_ns, earned_ns),
                ("expires_ns", first.expires_ns, until_ns),
            )
            if ours != theirs
        ]
        if wrong:
            self._say(f"{name} has another {_listed(wrong)} than its command says")

    def passed_on(self) -> None:
        """Lots that came by a transfer have all from the lot that gave: dates, terms, origin."""
        siblings = Counter(lot.cause_id for lot, _ in self._passed)
        for lot, dated in self._passed:
            name, asked = f"lot {id_text(lot.lot_id)}", self._issuers.get(lot.cause_id)
            at = (self._key, self._programme.id, lot.cause_id, lot.subscriber_id)
            if lot.lot_id not in {lot_id(*at, number) for number in range(siblings[lot.cause_id])}:
                self._say(f"{name} is not the lot of its cause and member")
            giver, giver_dated = self._givers.get(lot.parent_lot_id, (None, False))
            if giver is None:
                continue
            if asked is None or asked.kind != "transfer":
                self._say(f"{name} was passed on by no command")
            elif asked.subscriber_id != giver.subscriber_id:
                self._say(f"{name} came from a lot of another than who gave")
            columns = ["conversion_key", "terms_id"]
            if not dated and not giver_dated:
                columns += ["earned_ns", "expires_ns"]
            wrong = [c for c in columns if getattr(lot, c) != getattr(giver, c)]
            if wrong:
                self._say(f"{name} has another {_listed(wrong)} than the lot it came from")

    def target(self, target: Target) -> None:
        """The lot that a conversion's newest target gave its points to."""
        lot = self._lots.get((target.conversion_key, target.subscriber_id))
        if lot is None:
            return
        wanted = {
            "contract_version": target.contract_version,
            "rule_version": target.rule_version,
            "earned_ns": target.event_ns,
        }
        wrong = [name for name, value in wanted.items() if getattr(lot, name) != value]
        if wrong:
            name, key = f"lot {id_text(lot.lot_id)}", id_text(target.conversion_key)
            self._say(f"{name} has another {_listed(wrong)} than conversion {key}")

    def references(self) -> None:
        """Runs and rulebooks that are named and gone."""
        runs = {row.run_id: row for row in self._rows(tables.runs)}
        cuts = [row.run_id for row in self._rows(tables.cuts)]
        if not (runs or cuts or self._terms_of_rulebook):
            return
        if runs or cuts:
            bookings = {row.booking_id: row.run_id for row in self._rows(tables.bookings)}
            asked = (row.booking_id for row in self._rows(tables.requests))
            requests = (bookings.get(number, NO_ID) for number in asked)
            for what, named in (
                ("postings", self._folds.runs),
                ("commands", Counter(requests)),
                ("cuts", Counter(cuts)),
            ):
                for run in sorted(named.keys() - runs.keys()):
                    self._say(f"run {id_text(run) or 'none'} is gone, it made {named[run]} {what}")
        named = Counter(self._folds.rulebook_of.values())
        for rulebook in sorted(named.keys() - self._terms_of_rulebook.keys() - {NO_ID}):
            name = f"rulebook {id_text(rulebook)}"
            self._say(f"{name}, which {named[rulebook]} postings name, was never imported")
        for run, row in sorted(runs.items()):
            if row.rulebook_hash not in (NO_ID, *self._terms_of_rulebook):
                named_by = f"rulebook {id_text(row.rulebook_hash)}, which run {id_text(run)} names"
                self._say(f"{named_by}, was never imported")

    def _check_terms(self, name: str, number: int, rulebook: bytes) -> None:
        expected = self._terms_of_rulebook.get(rulebook, number)
        if number != expected:
            self._say(f"{name} has terms number {number}, its rulebook has number {expected}")

    def _rows(self, table: Table) -> list[AnyRow]:
        return list(self._connection.execute(select(table)).all())


def dated_by(policy: str, earned_ns: int, timezone: str) -> int:
    """When points lapse under a policy; never (0) under one that is none."""
    try:
        return expires_ns(policy, earned_ns, timezone)
    except ValueError:
        return 0


def _other(found: Terms, expected: Terms) -> str:
    """What differs, as `name 'found', not 'expected'`."""
    ours, theirs = found._asdict(), expected._asdict()
    return ", ".join(f"{n} {ours[n]!r}, not {theirs[n]!r}" for n in ours if ours[n] != theirs[n])


def _listed(names: list[str]) -> str:
    return " and ".join(names)
