"""One walk over all entries in booking order: what each must be, and sums for the audit.

Checked on the way: numbering without gaps, the hash chain, ids that follow from the cause, legs of
a transfer that sum to zero for each commodity, a cause and a rule, the accounting period, and times
of booking that never go back.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Select, select

from pipeline.ledger.accounts import EntryKind, member_accounts
from pipeline.ledger.terms import period_of
from pipeline.ledger.transfers import (
    CONVERSION,
    FIRST_LINK,
    ORDER,
    Cause,
    Header,
    Leg,
    entry_link,
    header_bytes,
    transfer_id,
)
from pipeline.model.identifiers import NO_ID, id_text
from pipeline.rulebook.model import Programme
from pipeline.store import book_schema as tables
from pipeline.store.book_schema import AnyRow

STEP = 4096
ENTRY_COLUMNS = 8


@dataclass
class Folds:
    """What the entries say, for the audit to compare with what is stored."""

    balances: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    by_conversion: dict[tuple[bytes, str, str], int] = field(
        default_factory=lambda: defaultdict(int)
    )
    redeemed: dict[bytes, int] = field(default_factory=lambda: defaultdict(int))
    spendable: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # by transfer
    rulebook_of: dict[int, bytes] = field(default_factory=dict)  # by transfer
    runs: Counter[bytes] = field(default_factory=Counter)  # transfers of each
    # By conversion, what each transfer said that opened a pending item, in their order: member,
    # contract, rule, time, rulebook.
    opened: dict[bytes, list[tuple[bytes, str, bytes, int, bytes]]] = field(
        default_factory=lambda: defaultdict(list)
    )


def walk_query() -> Select[Any]:
    """Entries in booking order, each with its account and the header of its transfer."""
    entries, transfers, accounts = tables.entries, tables.transfers, tables.accounts
    return (
        select(
            *entries.c, accounts.c.account, accounts.c.commodity,
            *(transfers.c[name] for name in Header._fields),
        )
        .select_from(entries)
        .outerjoin(transfers, entries.c.transfer_number == transfers.c.transfer_number)
        .outerjoin(accounts, entries.c.account_id == accounts.c.account_id)
        .order_by(entries.c.sequence)
    )  # fmt: skip


class Walk:
    """Goes over the entries once; `problems` and `folds` are what came of it."""

    def __init__(self, connection: Connection, key: bytes, programme: Programme) -> None:
        self.problems: list[str] = []
        self.folds = Folds()
        self._key, self._programme = key, programme
        versions = tables.rule_versions
        self._rules = {row[0] for row in connection.execute(select(versions.c.version).distinct())}
        # A book that did a cut or has a rulebook was told of all rules that it booked under.
        self._imports = bool(self._rules) or any(
            connection.execute(select(table).limit(1)).first() is not None
            for table in (tables.rulebooks, tables.cuts)
        )
        self._sequence, self._link = 0, FIRST_LINK
        self._transfer, self._leg, self._step, self._booked_ns = 0, 0, 0, 0
        self._header: Header | None = None
        self._hashed = b""
        self._sums: dict[str, int] = {}
        streamed = connection.execution_options(yield_per=STEP)
        for row in streamed.execute(walk_query()):
            self._entry(row)
        self._end_transfer()
        self._end(connection)

    def _entry(self, row: AnyRow) -> None:
        sequence, number, leg, account_id, amount, link = row[:6]
        if sequence != self._sequence + 1:
            self.problems.append(f"entries {self._sequence + 1} to {sequence - 1} are missing")
        if row.account is None:
            self.problems.append(
                f"entry {sequence} is of account number {account_id}, which is none"
            )
        if number != self._transfer:
            self._begin_transfer(number, row)
        if leg != self._leg:
            self.problems.append(f"entry {sequence} is leg {leg}, expected {self._leg}")
        moved = Leg(row.account or "", row.commodity or "", amount)
        made = entry_link(self._key, self._link, self._hashed, sequence, leg, moved)
        if made != link:
            self.problems.append(
                f"entry {sequence} of transfer number {number} breaks the hash chain:"
                " it, its transfer or its account was changed, or an entry before it is gone"
            )
        self._sequence, self._link, self._leg = sequence, link, leg + 1
        self._fold(account_id, number, moved)

    def _fold(self, account_id: int, number: int, moved: Leg) -> None:
        self._sums[moved.commodity] = self._sums.get(moved.commodity, 0) + moved.amount
        self.folds.balances[account_id] += moved.amount
        header = self._header
        if header is None:
            return
        if header.cause_kind == CONVERSION and not moved.account.startswith("member:"):
            at = (header.cause_id, moved.account, moved.commodity)
            self.folds.by_conversion[at] += moved.amount
        elif header.cause_kind == ORDER and moved.account.startswith("programme:redeemed:"):
            self.folds.redeemed[header.cause_id] -= moved.amount
        names = member_accounts(header.subscriber_id)
        if moved.account in (names.available, names.reserved):
            self.folds.spendable[number] -= moved.amount
        elif moved.account.startswith("member:") and moved.account not in names:
            self.problems.append(
                f"entry {self._sequence} moves {moved.account} in a transfer about"
                f" subscriber {id_text(header.subscriber_id)}"
            )

    def _begin_transfer(self, number: int, row: AnyRow) -> None:
        self._end_transfer()
        if number != self._transfer + 1:
            self.problems.append(
                f"entry {row.sequence} is of transfer number {number}, out of turn"
            )
        before = self._header
        self._transfer, self._leg, self._sums = number, 0, {}
        if row.transfer_id is None:
            self._header, self._hashed = None, b""
            self.problems.append(
                f"entry {row.sequence} is of transfer number {number}, which is none"
            )
            return
        header = self._header = Header(*row[ENTRY_COLUMNS:])
        self._hashed = header_bytes(header)
        same = before is not None and _cause_of(before) == _cause_of(header)
        self._step = self._step + 1 if same else 0
        self._check_header(header)
        self._fold_header(number, header)

    def _fold_header(self, number: int, header: Header) -> None:
        folds = self.folds
        folds.rulebook_of[number] = header.rulebook_hash
        folds.runs[header.run_id] += 1
        if header.kind == EntryKind.EARN_PENDING:
            rule = (header.contract_version, header.rule_version, header.effective_ns)
            made = (header.subscriber_id, *rule, header.rulebook_hash)
            folds.opened[header.conversion_key].append(made)

    def _check_header(self, header: Header) -> None:
        say, name = self.problems.append, f"transfer {id_text(header.transfer_id)}"
        kind, identifier, version = _cause_of(header)
        cause = Cause(kind, identifier, version, 0, "", NO_ID, "", NO_ID, "", NO_ID)
        if transfer_id(self._key, self._programme.id, cause, self._step) != header.transfer_id:
            say(f"{name} does not have the id of its cause")
        if identifier == NO_ID or not kind or version < 1:
            say(f"{name} has no cause")
        if header.rule_version == NO_ID:
            say(f"{name} has no rule version")
        elif self._imports and header.rule_version not in self._rules:
            say(f"{name} was booked under rule version {header.rule_version.hex()}, never imported")
        if header.period != period_of(header.booked_ns, self._programme.timezone):
            say(f"{name} is in period {header.period}, but was booked in another")
        if header.booked_ns < self._booked_ns:
            say(f"{name} was booked at an earlier time than the one before it")
        self._booked_ns = header.booked_ns

    def _end_transfer(self) -> None:
        for commodity, rest in self._sums.items():
            if rest:
                name = id_text(self._header.transfer_id) if self._header else str(self._transfer)
                self.problems.append(
                    f"transfer {name} does not balance: {rest} {commodity} are left"
                )

    def _end(self, connection: Connection) -> None:
        head = connection.execute(select(tables.heads)).one()
        if (head.sequence, head.transfers) != (self._sequence, self._transfer):
            self.problems.append(
                f"the book ends at entry {self._sequence} of transfer {self._transfer},"
                f" its head says entry {head.sequence} of transfer {head.transfers}"
            )
        if head.link != self._link:
            self.problems.append("the head of the hash chain is not the link of the last entry")


def _cause_of(header: Header) -> tuple[str, bytes, int]:
    return header.cause_kind, header.cause_id, header.cause_version
