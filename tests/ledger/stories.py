"""Stories: a small table with one request per line and the expected result last.

    cut | do     | what | member | state     | points | money  | result
    1   | target | a    | ann    | available |     40 | 10/4/6 | ok
    2   | order  | o1   | ann    |           |     30 |        | ok

`what` names a conversion or an order, `money` is receivable/cost/margin in cents. More columns may
be given: `fold` (else the cut), `event` (a date), `rule`, `terms`, `book` (the rulebook,
else one for each rule), `partner`, `currency`. A line that starts with `=` says balances: member, then pending, available, reserved, debt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import numpy as np

from pipeline.ledger.accounts import Bucket, member_accounts
from pipeline.ledger.commands import commands_of
from pipeline.ledger.due import post_due
from pipeline.ledger.posting import post_target
from pipeline.ledger.requests import post_command
from pipeline.ledger.state import LedgerState, rules_of
from pipeline.ledger.targets import Target
from pipeline.ledger.transfers import Answer, Posting
from pipeline.model.batches import CommandBatch, TargetBatch
from pipeline.model.columns import ID_DTYPE, TextColumn, columns_of, ids
from pipeline.model.identifiers import NO_ID, Keys, digest
from pipeline.model.words import Result, TargetReason, TargetState
from pipeline.rulebook.model import (
    Experiment,
    Location,
    Policy,
    Programme,
    Rulebook,
    files_hash,
)
from pipeline.store.book import NO_DOUBTS, Book

KEYS = Keys.from_seed("book tests")
STORY_COLUMNS = ("rule", "terms", "book", "partner", "currency")
RUN = digest(KEYS.visit, "run", "tests")


def ns(text: str) -> int:
    """UTC nanoseconds of an ISO date or time."""
    moment = datetime.fromisoformat(text)
    return int(moment.replace(tzinfo=UTC).timestamp()) * 1_000_000_000


DAY_NS = 86400 * 1_000_000_000
EVENT_NS = ns("2026-03-01")


def name_id(kind: str, name: str) -> bytes:
    """The id a story means by a name; `-` and nothing are none."""
    if name in ("", "-"):
        return NO_ID
    return hashlib.blake2b(name.encode(), digest_size=16, person=kind.encode()).digest()


def rulebook(**changed: object) -> Rulebook:
    """A rulebook without partners; `changed` are facts of its programme."""
    facts = {
        "id": "club", "title": "Club", "timezone": "Europe/Berlin", "points": "PTS",
        "points_scale": 0, "currency": "EUR", "region": "north", "funder": "operator",
        "issue_price": Fraction(1, 100), "settlement_price": Fraction(1, 200),
        "expiry": "calendar_year_plus(2)", **changed,
    }  # fmt: skip
    files = {"programme.toml": json.dumps({k: str(v) for k, v in facts.items()}, sort_keys=True)}
    version = files_hash(files)
    programme = Programme(
        **facts,  # type: ignore[arg-type]
        version=version,
        location=Location("programme.toml", 1, "programme"),
    )
    policy = Policy(
        "default", 1, 1, 1, 1, Experiment("none", Fraction(0), ""), name_id("policy", "p"),
        Location("policy.toml", 1, "policy"),
    )  # fmt: skip
    return Rulebook(version, files, programme, (), (), policy)


def target(
    what: str = "a",
    points: int = 0,
    state: str = "none",
    *,
    fold: int = 1,
    member: str = "ann",
    money: str = "",
    currency: str = "EUR",
    partner: str = "acme-shop",
    event_ns: int = EVENT_NS,
    rule: str = "r1",
    terms: str = "t1",
    book: str = "",
    contract: str = "2026-01",
) -> Target:
    """A target in short."""
    receivable, cost, margin = map(int, (money or "0/0/0").split("/"))
    return Target(
        name_id("conversion", what), fold, 1, fold, name_id("member", member), partner, what,
        int(TargetState[state.upper()]), int(TargetReason.AWARDED), points,
        receivable, cost, margin, currency if money else "",
        name_id("click", what), name_id("visit", what), event_ns, 0,
        "acme-shop/percent", name_id("rule", rule), contract, name_id("rulebook", book or rule),
        name_id("terms", terms if rule != "-" else "-"), "",
    )  # fmt: skip


def target_batch(targets: Iterable[Target]) -> TargetBatch:
    """Targets as a batch."""
    rows = list(targets)
    columns = {}
    for at, column in enumerate(columns_of(TargetBatch)):
        values = [row[at] for row in rows]
        if column.dtype is None:
            columns[column.name] = TextColumn.of(values)
        elif column.dtype == ID_DTYPE:
            columns[column.name] = ids(values)
        else:
            columns[column.name] = np.array(values, column.dtype)
    return TargetBatch(**columns)


def order_batch(
    orders: Iterable[tuple[str, str, int]], event_ns: int = EVENT_NS, body: str = "{}"
) -> CommandBatch:
    """(reference, member, points) as `order` commands."""
    rows = list(orders)
    count = len(rows)
    return CommandBatch(
        ids(name_id("order", ref) for ref, _, _ in rows),
        TextColumn.repeat("order", count),
        TextColumn.of(ref for ref, _, _ in rows),
        TextColumn.repeat("ann", count),
        TextColumn.repeat("member", count),
        TextColumn.repeat("", count),
        ids(name_id("member", member) for _, member, _ in rows),
        np.array([points for _, _, points in rows], np.int64),
        TextColumn.repeat(body, count),
        np.full(count, event_ns, np.int64),
        np.full(count, event_ns, np.int64),
    )


def table(text: str) -> list[dict[str, str]]:
    """The lines of a story by column name."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    names = [name.strip() for name in lines[0].split("|")]
    rows = []
    for line in lines[1:]:
        if line.startswith("="):
            rows.append({"balances": line[1:].strip()})
        else:
            cells = [cell.strip() for cell in line.split("|")]
            assert len(cells) == len(names), f"{line!r} does not have {len(names)} columns"
            rows.append(dict(zip(names, cells, strict=True)))
    return rows


class PureDesk:
    """The posting logic by itself: one state that never leaves memory."""

    def __init__(self, book: Rulebook | None = None) -> None:
        made = book or rulebook()
        self.state = LedgerState(KEYS.audit, rules_of(made.programme, made.hash))
        self.state.booked_period = "2026-03"
        self.postings: list[Posting] = []

    def post(self, targets: Iterable[Target], cut: int = 1) -> list[Result]:
        """Post targets one by one."""
        made = [post_target(self.state, t) for t in targets]
        return self._took(made)

    def command(
        self, batch: CommandBatch, cut: int = 1, doubts: Mapping[bytes, str] = NO_DOUBTS
    ) -> list[Result]:
        """Post commands one by one."""
        asked = commands_of(batch)
        return self._took([post_command(self.state, c, c.command_id in doubts) for c in asked])

    def due(self, now_ns: int, cut: int = 1) -> tuple[int, int]:
        """Let what is due end: how many reservations, how many lots."""
        made, releases = post_due(self.state, list(self.state.members), now_ns)
        self.postings += made
        return releases, len(made) - releases

    def _took(self, answers: list[Answer]) -> list[Result]:
        for answer in answers:
            self.postings += answer.postings
        for lot in self.state.lots.values():
            lot.stored = True
        return [answer.result for answer in answers]

    def points(self, member: str) -> tuple[int, int, int, int]:
        """Pending, available, reserved, debt."""
        found = self.state.members.get(name_id("member", member))
        if found is None:
            return 0, 0, 0, 0
        return tuple(self.state.shown(found, bucket) for bucket in Bucket)  # type: ignore[return-value]

    def lots(self, member: str) -> dict[bytes, int]:
        """Remaining points by conversion."""
        lots = [x for x in self.state.lots.values() if x.subscriber_id == name_id("member", member)]
        return {lot.conversion_key: lot.remaining for lot in lots if lot.remaining}

    def balances(self) -> dict[tuple[str, str], int]:
        """All balances that are not zero."""
        state = self.state
        found = {at: state.balances[number] for at, number in state.accounts.items()}
        for member in state.members.values():
            for bucket, name in enumerate(member_accounts(member.subscriber_id)):
                found[name, "PTS"] = state.balances[member.account(bucket)]
        return {at: balance for at, balance in sorted(found.items()) if balance}


class BookDesk:
    """The same requests to a book in SQLite."""

    def __init__(self, url: str = "sqlite://", book: Rulebook | None = None) -> None:
        self.book = Book(url, KEYS, book or rulebook())
        self._now_ns = 0

    def _booking(self, cut: int, now_ns: int = 0) -> dict[str, Any]:
        """As `booking`; `now` never goes back."""
        where = booking(cut)
        self._now_ns = max(self._now_ns, now_ns or where["now_ns"])
        return {**where, "now_ns": self._now_ns}

    def post(self, targets: Iterable[Target], cut: int = 1) -> list[Result]:
        """Post targets as one batch."""
        results = self.book.post_targets(target_batch(targets), **self._booking(cut))
        return [Result(int(result)) for result in results]

    def command(
        self, batch: CommandBatch, cut: int = 1, doubts: Mapping[bytes, str] = NO_DOUBTS
    ) -> list[Result]:
        """Post commands as one batch."""
        results = self.book.post_commands(batch, **self._booking(cut), doubts=doubts)
        return [Result(int(result)) for result in results]

    def order(self, ref: str, member: str, points: int, at_ns: int, cut: int = 1) -> Result:
        """Post one order."""
        return self.command(order_batch([(ref, member, points)], at_ns), cut)[0]

    def due(self, now_ns: int, cut: int = 1) -> tuple[int, int]:
        """Let what is due end: how many reservations, how many lots."""
        found = self.book.post_due(**{**self._booking(cut, now_ns), "now_ns": now_ns})
        return found.released, found.lapsed

    def points(self, member: str) -> tuple[int, int, int, int]:
        """Pending, available, reserved, debt."""
        found = self.book.member(name_id("member", member))
        return found.pending, found.available, found.reserved, found.debt

    def lots(self, member: str) -> dict[bytes, int]:
        """Remaining points by conversion."""
        lots = self.book.lots(name_id("member", member))
        return {lot.conversion_key: lot.remaining for lot in lots if lot.remaining}

    def balances(self) -> dict[tuple[str, str], int]:
        """All balances that are not zero."""
        return self.book.balances()


Desk = PureDesk | BookDesk


def booking(cut: int) -> dict[str, Any]:
    """What every call of the book names beside its batch; a cut a day."""
    return {"cut": cut, "now_ns": EVENT_NS + cut * DAY_NS, "run_id": RUN, "actor": "tests"}


def tell(desk: Desk, story: str) -> None:
    """Put the requests of a story, and compare results and balances line by line."""
    for number, row in enumerate(table(story), 1):
        line = f"line {number} of the story: {row}"
        if "balances" in row:
            member, *numbers = row["balances"].split()
            assert desk.points(member) == tuple(map(int, numbers)), line
            continue
        cut = int(row["cut"])
        if row["do"] == "order":
            at_ns = ns(row["event"]) if row.get("event") else EVENT_NS
            asked = order_batch([(row["what"], row["member"], int(row["points"]))], at_ns)
            result = desk.command(asked, cut)[0]
        else:
            result = desk.post([_target_of(row, cut)], cut)[0]
        assert result.name.lower() == row["result"], line


def _target_of(row: dict[str, str], cut: int) -> Target:
    more: dict[str, Any] = {n: row[n] for n in STORY_COLUMNS if row.get(n)}
    if row.get("event"):
        more["event_ns"] = ns(row["event"])
    return target(
        row["what"],
        int(row["points"]),
        row["state"],
        fold=int(row.get("fold") or cut),
        member=row["member"],
        money=row.get("money", ""),
        **more,
    )
