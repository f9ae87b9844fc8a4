"""Commands to the book as plain rows: what members, systems and people ask of it.

    order, reserve            a member spends points, at once or by a reservation
    commit, release, refund   the life of an order; `order` in the body names it
    transfer                  to another member (`to`)
    convert_out, convert_in   into and out of another programme's points (`programme`)
    adjust, migrate, forfeit  by people, with a reason; an import; what a leaver loses
    approve, reject           a second person about a command that waits (`request`)
    freeze, unfreeze          spending stops, goes on
    stock                     gifts that may be ordered (`item`)
    close_period              an accounting period (`period`)
    publish                   rules for all from a time on (`rulebook`, `from`)
    rerate                    purchases of before by other rules (`rulebook`, `cut`, `digest`)

A body that is no JSON object says nothing; what it lacks has a default or is refused by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any, NamedTuple

from pipeline.ledger.targets import plain_column
from pipeline.model.access import ENDING
from pipeline.model.batches import CommandBatch
from pipeline.model.identifiers import NO_ID, parse_id
from pipeline.model.words import BOOK_COMMANDS

SPENDING = frozenset({"order", "reserve", "transfer", "convert_out"})
OF_ORDERS = ENDING
OF_REQUESTS = frozenset({"approve", "reject"})
NUMBERS = ("hold_seconds", "quantity", "earned", "expires", "from", "cut", "since", "until")
WHOLE_MAX = 2**62


class Command(NamedTuple):
    """One command; `content` is a digest of all that makes two of one id the same."""

    command_id: bytes
    kind: str
    ref: str
    subscriber_id: bytes
    points: int
    event_ns: int
    body: str
    actor: str
    role: str
    scope: str
    said: dict[str, Any]
    content: bytes

    def text(self, name: str, default: str = "") -> str:
        """A text of the body; what is none is shown as text."""
        value = self.said.get(name, default)
        return str(value).replace("\0", "\ufffd") if value is not None else default

    def number(self, name: str, default: int = 0) -> int:
        """A whole number of the body; anything else is the default."""
        value = self.said.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= WHOLE_MAX:
            return value
        return default

    def id(self, name: str) -> bytes:
        """An id of the body; none where it is no id."""
        value = self.said.get(name)
        return (parse_id(value) if isinstance(value, str) else None) or NO_ID


def commands_of(
    batch: CommandBatch, kinds: Collection[str] = frozenset(BOOK_COMMANDS)
) -> list[Command]:
    """The rows of a batch; ValueError for a kind that is none of these."""
    strange = set(batch.kind.to_list()).difference(kinds)
    if strange:
        raise ValueError(f"the book does not know the command {', '.join(sorted(strange))}")
    columns = (
        batch.command_id, batch.kind, batch.ref, batch.subscriber_id, batch.points,
        batch.event_ns, batch.body, batch.actor, batch.role, batch.scope,
    )  # fmt: skip
    rows = zip(*(plain_column(column) for column in columns), strict=True)
    return [made(*row) for row in rows]


def made(
    command_id: bytes,
    kind: str,
    ref: str,
    subscriber_id: bytes,
    points: int,
    event_ns: int,
    body: str,
    actor: str,
    role: str = "",
    scope: str = "",
) -> Command:
    """A command out of its columns."""
    said = _object(body) if body not in ("", "{}") else {}
    words = json.dumps([kind, subscriber_id.hex(), points, said], sort_keys=True)
    content = hashlib.blake2b(words.encode(), digest_size=16, person=b"command").digest()
    return Command(
        command_id, kind, ref, subscriber_id, points, event_ns, body, actor, role, scope, said,
        content,
    )  # fmt: skip


def _object(body: str) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
