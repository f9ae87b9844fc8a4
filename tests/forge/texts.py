"""Text inputs of a forged day: rows by column name, written as capture/facts.py reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

COLUMNS: dict[str, tuple[str, ...]] = {
    "sign-ins": ("event_ns", "received_ns", "kind", "login", "address"),
    "circle": ("event_ns", "received_ns", "login", "state", "terms"),
    "members": ("event_ns", "received_ns", "login", "joined", "level", "products"),
    "orders": ("event_ns", "received_ns", "login", "ref", "points"),
    "purchases": (
        "event_ns", "received_ns", "partner", "conversion_id", "line_id", "order_ref", "click_ref",
        "member", "address", "port", "at_ns", "kind", "status", "reason", "amount_mode", "amount",
        "commission", "currency", "coupon", "correction_of", "status_ns", "sequence", "message_id",
        "items",
    ),
}  # fmt: skip
ABOUT: dict[str, tuple[str, ...]] = {
    "sign-ins": (
        "event_ns: when it happened; received_ns: when we were told. UTC nanoseconds or ISO 8601.",
        "start and interim: the login holds the address; stop: it gives it up.",
    ),
    "circle": (
        "state: listed, consented, refused or left, from event_ns on; terms: their version.",
    ),
    "members": ("What a member is from event_ns on: since when (joined), level, products.",),
    "orders": ("The member behind the login spends points; the same ref is the same order.",),
    "purchases": (
        "event_ns: the purchase; received_ns: the message; status_ns, sequence: their order.",
        "amount_mode: absolute (the new total) or delta (a change of it); amounts are decimals.",
        "click_ref: the click we handed out; member, or address with port and at_ns: who bought.",
    ),
}


def write_rows(
    path: Path,
    kind: str,
    rows: Iterable[Mapping[str, str] | str],
    columns: Sequence[str] | None = None,
) -> int:
    """Write a file; a row that is a string is written as it stands. Gives the number of rows."""
    columns = columns or COLUMNS[kind]
    lines = [f"# mirrorpoint {kind} v1", "\t".join(columns)]
    lines += [f"# {line}" for line in ABOUT[kind]]
    count = 0
    for row in rows:
        lines.append(row if isinstance(row, str) else "\t".join(row.get(c, "") for c in columns))
        count += 1
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return count
