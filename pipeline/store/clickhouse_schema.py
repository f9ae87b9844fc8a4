"""The tables and views of the ClickHouse store, generated from the batches.

Every stream of the journal has an append-only table `<stream>_log`, one row per journal row. Three
more tables hold what the journal does not: `entries_log` (delivered from the book's outbox),
`conversions_log` (one row per conversion and cut: what accrual sent and what the book answered) and
`runs_log`. Analysts read the views, which show the newest version of each id; jobs that pay read
the tables up to a cut's position and never a view.

A batch's column becomes a column here by its type and a few overrides: an id is a UUID, `*_ns` is
DateTime64(9) under the name `*_at` (and an ALIAS `*_ns` that is the integer), the two words of an
address are one IPv6, numbers of a closed list are Enum8 made from `model/words.py`. **Sealed
columns have no place here**: they never leave the journal. Zero ids, empty texts and 1970-01-01
mean none.

A table that another version made is brought up only where that is safe (a closed list grew);
anything else is refused with the names, because the store can be delivered again from its sources.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from pipeline.model.batches import STREAMS, EntryBatch
from pipeline.model.columns import I64, ID, TEXT, U8, U32, U64, Batch, Column, stored_columns
from pipeline.model.words import (
    AmountMode,
    Arrival,
    Basis,
    BindingKind,
    Decision,
    Delivery,
    OrderBy,
    ParkReason,
    Reason,
    Result,
    Status,
    TargetReason,
    TargetState,
    VisitTrigger,
)
from pipeline.store.connections import MARK


class RunState(IntEnum):
    """How far a run came."""

    STARTED = 1
    DONE = 2
    ABANDONED = 3  # a unit of input that was given up


@dataclass(frozen=True, slots=True)
class ConversionBatch(Batch):
    """What accrual sent for a conversion at a cut, and what the book answered.

    `cut` is the number of the cut it was sent at, `fold` the number under which it was sent
    (another one where a cut's job is delivered once more). `status` and the message amounts are of
    the fold.
    """

    conversion_key: ID
    cut: I64
    cut_id: ID
    fold: I64
    result: U8
    state: U8
    reason: U8
    points: I64
    partner: TEXT
    conversion_id: TEXT
    kind: TEXT
    status: U8
    amount_minor: I64
    commission_minor: I64
    currency: TEXT
    receivable_minor: I64
    cost_minor: I64
    margin_minor: I64
    subscriber_id: ID
    click_id: ID
    visit_id: ID
    facts: U32
    facts_hash: U64
    event_ns: I64
    release_ns: I64
    rule_id: TEXT
    rule_version: ID
    contract_version: TEXT
    rulebook_hash: ID
    explanation: TEXT


@dataclass(frozen=True, slots=True)
class AnswerBatch(Batch):
    """What the book answered to a command: one row per message, `place` is its row in `commands`.

    `cut` is the number of the cut it was posted at, `doubt` why it had to wait for a person (fraud
    codes as JSON), where a member sent it.
    """

    command_id: ID
    place: I64
    kind: TEXT
    subscriber_id: ID
    cut: I64
    result: U8
    doubt: TEXT


@dataclass(frozen=True, slots=True)
class RunBatch(Batch):
    """A run of a job: one row when it started, one when it was done; `counts` is JSON.

    Job `accrue` runs at a cut: `conversions` is how many were sent, `whole` whether that was all
    there are. Job `ingest` is a unit of a watched folder, or a replay (`store/runs.py`): it has no
    cut, and `counts` holds the rows it wrote by stream.
    """

    run_id: ID
    state: U8
    job: TEXT
    actor: TEXT
    cut: I64
    cut_id: ID
    now_ns: I64
    rulebook_hash: ID
    conversions: I64
    whole: U8
    counts: TEXT
    started_ns: I64
    finished_ns: I64


WORDS: Mapping[str, Mapping[str, type[IntEnum]]] = {
    "bindings": {"kind": BindingKind},
    "basis": {"state": Basis},
    "visits": {"trigger": VisitTrigger, "basis": Basis, "arrival": Arrival},
    "decisions": {"kind": Decision, "reason": Reason},
    "clicks": {"delivery": Delivery},
    "purchases": {
        "status": Status,
        "amount_mode": AmountMode,
        "order_by": OrderBy,
        "parked": ParkReason,
    },
    "conversions": {
        "result": Result,
        "state": TargetState,
        "reason": TargetReason,
        "status": Status,
    },
    "answers": {"result": Result},
    "runs": {"state": RunState},
}
FLAGS = {
    ("visits", "ambiguous"),
    ("purchases", "id_given"),
    ("rulebooks", "proposed"),
    ("runs", "whole"),
}

# Texts of which there are few: a dictionary serves them better.
FEW = {
    "actor", "campaign", "cause_kind", "cell", "channel", "commodity", "contract_version",
    "currency", "experiment", "input", "job", "kind", "partner", "period", "reason", "role",
    "rule_id", "scope", "terms", "tracker",
}  # fmt: skip

# What the rows of a table are ordered by, before their offset: what they are looked up by.
ORDER = {
    "rulebooks": ("rulebook_hash",),
    "bindings": ("address_hash", "event_at"),
    "basis": ("subscriber_id", "event_at"),
    "visits": ("subscriber_id", "visit_id"),
    "decisions": ("visit_id",),
    "clicks": ("click_id",),
    "purchases": ("conversion_key",),
    "commands": (),
    "cuts": ("number",),
    "entries": (),
    "conversions": ("conversion_key", "cut"),
    "answers": ("command_id",),
    "runs": ("run_id",),
}

# The id of a row and its cause, as the views name them.
CAUSE = {
    "visits": ("visit_id", "flow_id"),
    "decisions": ("decision_id", "visit_id"),
    "clicks": ("click_id", "decision_id"),
    "conversions": (
        "conversion_key",
        "if(click_id != toUUID('00000000-0000-0000-0000-000000000000'), click_id, visit_id)",
    ),
    "entries": ("entry_id", "cause_id"),
    "runs": (
        "run_id",
        "if(cut_id != toUUID('00000000-0000-0000-0000-000000000000'), cut_id, run_id)",
    ),
    "cuts": ("cut_id", "rulebook_hash"),
}

# Which row of an id its view shows: the first in this order.
NEWEST = {
    "conversions": "fold DESC, cut, stream_offset",
    "runs": "state DESC, stream_offset DESC",
}

# What a view says in place of a column of the newest row, where other rows know better.
SAID = {
    # A purchase that names a click shows that the subscriber went where it leads.
    ("clicks", "delivery"): (
        f"CAST(if(click_id IN (SELECT click_id FROM {{database}}.purchases_log"
        f" WHERE parked = '{ParkReason.NONE.name.lower()}'), '{Delivery.PROVEN.name.lower()}',"
        " toString(delivery)), '{type}')"
    ),
}

ABOUT = {
    "rulebooks": "The full text of every rulebook.",
    "bindings": "Which subscriber held which address, by the address's keyed hash.",
    "basis": "Each subscriber's standing and since when.",
    "visits": "Versions of visits.",
    "decisions": "What was decided for each visit, and why.",
    "clicks": "Links handed out.",
    "purchases": "Messages of partners, parked ones too.",
    "commands": "What people and systems asked of us.",
    "cuts": "Positions of the journal at which jobs ran.",
    "entries": "Accepted entries of the book: the debit and the credit of each transfer.",
    "conversions": "What accrual sent for each conversion at each cut, and what the book answered.",
    "answers": "What the book answered to each command.",
    "runs": "Runs of jobs.",
}
VIEWS = {
    "visits": "The newest version of each visit. Cause: the flow that opened it.",
    "decisions": "Decisions. Cause: the visit.",
    "clicks": "Clicks; a purchase that names one proves its delivery. Cause: the decision.",
    "conversions": "The latest outcome of each conversion. Cause: its click, else its visit.",
    "entries": "Entries. Cause: as the book names it (`cause_kind`, `cause_id`).",
    "runs": "The latest state of each run. Cause: the cut it ran at; of an ingest the command that"
    " announced it, whose id it has.",
    "cuts": "Cuts. Cause: the rulebook in force.",
}


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of a table and the batch columns it is made of (none: what delivery adds)."""

    name: str
    type: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A `<name>_log` table."""

    name: str
    batch: type[Batch]
    columns: tuple[TableColumn, ...]

    @property
    def log(self) -> str:
        """The table's name in ClickHouse."""
        return f"{self.name}_log"


def _table(name: str, batch: type[Batch]) -> Table:
    found: list[TableColumn] = []
    plain = [c for c in stored_columns(batch) if not c.sealed]
    names = {c.name for c in plain}
    for column in plain:
        stem = column.name.removesuffix("_hi").removesuffix("_lo")
        if stem != column.name and {f"{stem}_hi", f"{stem}_lo"} <= names:
            if column.name.endswith("_hi"):
                found.append(TableColumn(stem, "IPv6", (f"{stem}_hi", f"{stem}_lo")))
            continue
        found.append(_column(name, column))
    found += [c for c in DELIVERED if c.name not in {f.name for f in found}]
    return Table(name, batch, tuple(found))


def _column(table: str, column: Column) -> TableColumn:
    source = (column.name,)
    if column.dtype is None:
        few = column.name in FEW
        return TableColumn(column.name, "LowCardinality(String)" if few else "String", source)
    if column.dtype.kind == "V":
        return TableColumn(column.name, "UUID", source)
    words = WORDS.get(table, {}).get(column.name)
    if words is not None:
        return TableColumn(column.name, enum_type(words), source)
    if (table, column.name) in FLAGS:
        return TableColumn(column.name, "Bool", source)
    if column.name.endswith("_ns"):
        return TableColumn(column.name[:-3] + "_at", "DateTime64(9, 'UTC')", source)
    kind = "Int" if column.dtype.kind == "i" else "UInt"
    return TableColumn(column.name, f"{kind}{column.dtype.itemsize * 8}", source)


def enum_type(words: type[IntEnum]) -> str:
    """`Enum8(...)` of a closed list in lower case; a zero that the list does not name is empty."""
    named = {int(word): word.name.lower() for word in words}
    named.setdefault(0, "")
    assert all(0 <= number < 128 for number in named), words
    pairs = ", ".join(f"'{name}' = {number}" for number, name in sorted(named.items()))
    return f"Enum8({pairs})"


DELIVERED = (
    TableColumn("run_id", "UUID"),
    TableColumn("stream_offset", "UInt64"),
    TableColumn("segment", "UInt64"),
    TableColumn("row_hash", "UInt64"),
)

TABLES: dict[str, Table] = {
    name: _table(name, batch)
    for name, batch in {
        **STREAMS,
        "entries": EntryBatch,
        "conversions": ConversionBatch,
        "answers": AnswerBatch,
        "runs": RunBatch,
    }.items()
}


def create_table(table: Table, database: str) -> str:
    """The statement that makes a table. The tokens of its last 10,000 inserts are remembered."""
    lines = [f"  {c.name} {c.type}" for c in table.columns]
    lines += [f"  {name} Int64 ALIAS {formula}" for name, formula in aliases(table)]
    lines.append("  INDEX by_offset stream_offset TYPE minmax GRANULARITY 1")
    order = ", ".join((*ORDER[table.name], "stream_offset"))
    return (
        f"CREATE TABLE IF NOT EXISTS {database}.{table.log} (\n" + ",\n".join(lines) + "\n)\n"
        f"ENGINE = MergeTree ORDER BY ({order})\n"
        "SETTINGS non_replicated_deduplication_window = 10000"
    )


def aliases(table: Table) -> list[tuple[str, str]]:
    """Name and formula of the integer times of a table."""
    return [
        (c.name[:-3] + "_ns", f"toUnixTimestamp64Nano({c.name})")
        for c in table.columns
        if c.type.startswith("DateTime64")
    ]


def create_view(name: str, database: str) -> str:
    """The statement that makes a view: of every id the newest row."""
    table = TABLES[name]
    key, cause = CAUSE[name]
    own = {c.name for c in table.columns}
    head = [f"{key} AS id"] + ([f"{cause} AS cause_id"] if "cause_id" not in own else [])
    newest = NEWEST.get(name, "stream_offset DESC")
    selected = ", ".join([*head, *(_said(table, c, database) for c in table.columns)])
    return (
        f"CREATE OR REPLACE VIEW {database}.{name} AS SELECT {selected}"
        f" FROM {database}.{table.log} ORDER BY {key}, {newest} LIMIT 1 BY {key}"
    )


def _said(table: Table, column: TableColumn, database: str) -> str:
    """A column of a view."""
    formula = SAID.get((table.name, column.name))
    if formula is None:
        return column.name
    told = formula.format(database=database, type=column.type.replace("'", "\\'"))
    return f"{told} AS {column.name}"


def statements(database: str) -> list[str]:
    """What makes the tables of a store of this name; doing it again changes nothing."""
    return [
        f"CREATE DATABASE IF NOT EXISTS {database}",
        *(create_table(table, database) for table in TABLES.values()),
    ]


def views(database: str) -> list[str]:
    """What makes the views, once the tables are as they should be; the mark comes last."""
    mark = f"SELECT '{fingerprint()}' AS fingerprint"
    return [
        *(create_view(name, database) for name in VIEWS),
        f"CREATE OR REPLACE VIEW {database}.{MARK} AS {mark}",
    ]


@functools.cache
def fingerprint() -> str:
    """Changes when any statement does: a store with this mark needs none of them."""
    made = [*statements("x"), *(create_view(name, "x") for name in VIEWS)]
    return hashlib.blake2b("\n".join(made).encode(), digest_size=16).hexdigest()


def changes(found: Iterable[tuple[str, str, str]], database: str) -> tuple[list[str], list[str]]:
    """Compare columns as ClickHouse has them (table, name, type) with what they should be.

    Returns statements that widen closed lists, and a line for each difference that is not safe.
    """
    have: dict[str, dict[str, str]] = {}
    for log, name, kind in found:
        have.setdefault(log, {})[name] = kind
    alter, problems = [], []
    for table in TABLES.values():
        columns = have.get(table.log, {})
        wanted = {c.name: c.type for c in table.columns}
        wanted.update(dict.fromkeys((name for name, _ in aliases(table)), "Int64"))
        for name in sorted(columns.keys() - wanted.keys()):
            problems.append(f"{table.log}.{name} is not known")
        for name, kind in wanted.items():
            before = columns.get(name)
            if before == kind:
                continue
            if before is None:
                problems.append(f"{table.log}.{name} is missing")
            elif _is_wider(kind, before):
                alter.append(f"ALTER TABLE {database}.{table.log} MODIFY COLUMN {name} {kind}")
            else:
                problems.append(f"{table.log}.{name} is {before} and should be {kind}")
    return alter, problems


def _is_wider(wanted: str, before: str) -> bool:
    """Does an Enum8 hold every word of another, with the same numbers?"""
    if not (wanted.startswith("Enum8(") and before.startswith("Enum8(")):
        return False
    return set(before[6:-1].split(", ")) < set(wanted[6:-1].split(", "))


PAGE_HEAD = """
# What is in the store

What `mirrorpoint sql "SELECT ..."` can be asked about (`make docs` writes this page from
`pipeline/store/clickhouse_schema.py`).

An id of zeros, an empty text and 1970-01-01 mean none. Times are UTC; in the `_log` tables every
`*_at` has an integer `*_ns` beside it, which `SELECT *` leaves out. Points and money are integers
of the smallest unit. Addresses of subscribers, logins and raw messages are sealed in the journal
and never come here.

Delivery adds four columns. `run_id`: the run that made the row, zeros where none did (what people
asked, settings, the texts of rules); `runs` says what it was. `stream_offset`: its place in the
stream (of entries: in the book, of conversions: in the cut). `segment`: the first row of the unit
it was delivered in. `row_hash`: what is compared with the journal.

## Views: the newest version of each id

Their columns are `id`, `cause_id` and those of the table of the same name.

"""


def schema_page() -> str:
    """The page `docs/schema.md`."""
    lines = [*PAGE_HEAD.strip("\n").split("\n"), ""]
    for name, about in VIEWS.items():
        lines.append(f"- `{name}`: {about}")
    lines += ["", "## Tables: append-only", ""]
    for table in TABLES.values():
        lines += [f"### {table.log}", "", ABOUT[table.name], "", "| column | type |", "|---|---|"]
        lines += [f"| {c.name} | {_shown(c.type)} |" for c in table.columns]
        lines.append("")
    return "\n".join(lines)


def _shown(kind: str) -> str:
    if not kind.startswith("Enum8("):
        return kind
    words = [pair.split("'")[1] for pair in kind[6:-1].split(", ")]
    return " / ".join(word or "(none)" for word in words)
