"""Commands in short, for stories about orders, lapses and what people do to points."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from pipeline.model.batches import CommandBatch
from pipeline.model.columns import TextColumn, concat, ids
from pipeline.model.identifiers import id_text
from pipeline.model.words import Result
from tests.ledger.stories import EVENT_NS, Desk, name_id, ns

IDS = ("order", "request", "to")


def ask(
    kind: str,
    ref: str,
    member: str = "",
    points: int = 0,
    at: str | int = EVENT_NS,
    actor: str = "ann",
    role: str = "admin",
    scope: str = "",
    **body: Any,
) -> CommandBatch:
    """A command; ids in its body are given by name."""
    said = {
        name: id_text(name_id("member" if name == "to" else "order", value))
        if name in IDS and isinstance(value, str)
        else value
        for name, value in body.items()
    }
    at_ns = np.array([ns(at) if isinstance(at, str) else at], np.int64)
    return CommandBatch(
        ids([name_id("order", ref)]),
        TextColumn.of([kind]),
        TextColumn.of([ref]),
        TextColumn.of([actor]),
        TextColumn.of([role]),
        TextColumn.of([scope]),
        ids([name_id("member", member)]),
        np.array([points], np.int64),
        TextColumn.of([json.dumps(said)]),
        at_ns,
        at_ns,
    )


def asked(desk: Desk, *batches: CommandBatch, cut: int = 0) -> list[str]:
    """What commands are answered, all in one batch."""
    return [result.name.lower() for result in desk.command(concat(list(batches)), cut)]


def say(desk: Desk, kind: str, ref: str, *args: Any, cut: int = 0, **body: Any) -> str:
    """What one command is answered."""
    (answer,) = asked(desk, ask(kind, ref, *args, **body), cut=cut)
    assert answer in {result.name.lower() for result in Result}
    return answer
