"""Stories: a small table with one request per line and the expected result last.

    cut | do     | what | member | state     | points | money  | result
    1   | target | a    | ann    | available |     40 | 10/4/6 | ok
    2   | order  | o1   | ann    |           |     30 |        | ok

`what` names a conversion or an order, `money` is receivable/cost/margin in cents. More columns may be
given: `event` (a date), `rule`, `partner`. After a line that starts with `=` stand balances: member,
then pending, available, reserved, debt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np

from pipeline.ledger.targets import Target
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

KEYS = Keys.from_seed("book tests")
RUN = digest(KEYS.visit, "run", "tests")


def ns(text: str) -> int:
    """UTC nanoseconds of an ISO date or time."""
    moment = datetime.fromisoformat(text)
    return int(moment.replace(tzinfo=UTC).timestamp()) * 1_000_000_000


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
    contract: str = "2026-01",
) -> Target:
    """A target in short."""
    receivable, cost, margin = map(int, (money or "0/0/0").split("/"))
    return Target(
        name_id("conversion", what), fold, 1, fold, name_id("member", member), partner, what,
        int(TargetState[state.upper()]), int(TargetReason.AWARDED), points,
        receivable, cost, margin, currency if money else "",
        name_id("click", what), name_id("visit", what), event_ns, 0,
        "acme-shop/percent", name_id("rule", rule), contract, name_id("rulebook", rule), "",
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
        ids(name_id("member", member) for _, member, _ in rows),
        np.array([points for _, _, points in rows], np.int64),
        TextColumn.repeat(body, count),
        np.full(count, event_ns, np.int64),
        np.full(count, event_ns, np.int64),
    )


def result_name(value: object) -> str:
    """A result as stories write it."""
    return Result(int(value)).name.lower()  # type: ignore[call-overload]


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
