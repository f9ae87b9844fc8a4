"""Rulebooks and rows for tests of score, made without files."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from pipeline.model.batches import FoldBatch, MessageBatch, VisitBatch
from pipeline.model.columns import ID_DTYPE, TextColumn, columns_of, ids
from pipeline.model.identifiers import Keys, digest
from pipeline.model.stage import END_OF_TIME
from pipeline.model.times import parse_time
from pipeline.rulebook.model import (
    Accrual,
    Contract,
    Experiment,
    Location,
    Match,
    Partner,
    Policy,
    Programme,
    Rulebook,
    files_hash,
)

KEYS = Keys.from_seed("score tests")
HERE = Location("test.toml", 1, "")
DAY_NS = 86_400 * 10**9
NOON = parse_time("2026-03-01T12:00:00Z")
assert NOON is not None
YEAR_START = parse_time("2026-01-01T00:00:00Z")
assert YEAR_START is not None


def an_id(name: str) -> bytes:
    """Sixteen bytes that stand for a name; zeros for the empty name."""
    return digest(b"tests", "name", name) if name else bytes(16)


def a_contract(**changes: Any) -> Contract:
    values: dict[str, Any] = {
        "version": "c-1",
        "valid_from_ns": YEAR_START,
        "valid_until_ns": END_OF_TIME,
        "click_delivery": "deeplink",
        "deep_link": "https://in.acme.example/?r={click}",
        "referral": True,
        "attribution_window_ns": 30 * DAY_NS,
        "return_window_ns": 14 * DAY_NS,
        "currency": "EUR",
        "commission": Fraction(8, 100),
        "commission_fixed": Fraction(0),
        "terms": "terms-1",
        "location": HERE,
    }
    return Contract(**(values | changes))


def an_accrual(**changes: Any) -> Accrual:
    values: dict[str, Any] = {
        "id": "sale",
        "kind": "percent",
        "action": "sale",
        "rate": Fraction(5, 100),
        "per_point": Fraction(1, 100),
        "points": 0,
        "valid_from_ns": YEAR_START,
        "valid_until_ns": END_OF_TIME,
        "location": HERE,
    }
    values |= changes
    values.setdefault("version", an_id(f"accrual {sorted(values.items(), key=str)}"))
    return Accrual(**values)


def a_partner(
    name: str = "acme-shop",
    *,
    status: str = "live",
    contracts: tuple[Contract, ...] | None = None,
    accruals: tuple[Accrual, ...] | None = None,
    **contract: Any,
) -> Partner:
    contracts = contracts or (a_contract(**contract),)
    accruals = (an_accrual(),) if accruals is None else accruals
    return Partner(
        id=name,
        title=name.title(),
        status=status,
        match=Match((f"{name}.example",), (), (), ()),
        contract=contracts[-1],
        contracts=contracts,
        accruals=accruals,
        examples=(),
        version=an_id(f"partner {name} {status} {contracts} {accruals}"),
        location=HERE,
    )


def a_rulebook(
    *partners: Partner,
    holdout: Fraction = Fraction(0),
    currency: str = "EUR",
    points_scale: int = 0,
    issue_price: Fraction = Fraction(1, 100),
) -> Rulebook:
    partners = tuple(sorted(partners or (a_partner(),), key=lambda p: p.id))
    files = {"made.toml": f"{partners} {holdout} {issue_price}"}  # no rules can be read from it
    return Rulebook(
        hash=files_hash(files),
        files=files,
        programme=Programme(
            id="club",
            title="Club",
            timezone="UTC",
            points="PTS",
            points_scale=points_scale,
            currency=currency,
            region="home",
            funder="operator",
            issue_price=issue_price,
            settlement_price=issue_price,
            expiry="never",
            version=an_id("programme"),
            location=HERE,
        ),
        partners=partners,
        trackers=(),
        policy=Policy(
            id="default",
            visit_gap_ns=1800 * 10**9,
            lateness_ns=300 * 10**9,
            guard_ns=30 * 10**9,
            tracker_window_ns=1800 * 10**9,
            experiment=Experiment("first-offer", holdout, "seed-1"),
            version=an_id("policy"),
            location=HERE,
        ),
    )


def make(batch_class: type, rows: list[dict[str, Any]], defaults: dict[str, Any]) -> Any:
    """A batch from dicts; ids may be given by name, what is left out is `defaults` or zero."""
    columns: dict[str, Any] = {}
    for column in columns_of(batch_class):
        name = column.name
        empty: Any = "" if column.dtype is None else 0
        values = [row.get(name, defaults.get(name, empty)) for row in rows]
        if column.dtype is None:
            columns[name] = TextColumn.of(values)
        elif column.dtype == ID_DTYPE:
            columns[name] = ids(v if isinstance(v, bytes) else an_id(v or "") for v in values)
        else:
            columns[name] = np.array(values, column.dtype)
    return batch_class(**columns)


def messages(*rows: dict[str, Any]) -> MessageBatch:
    """Messages of acme-shop, each pending over 10.00 unless it says otherwise."""
    numbered = [
        {"row": n, "raw": repr(sorted(row.items())), **row} for n, row in enumerate(rows, start=1)
    ]
    defaults = {
        "input": "purchases.tsv",
        "event_ns": NOON,
        "received_ns": NOON,
        "partner": "acme-shop",
        "conversion_id": "C-1",
        "status": "pending",
        "amount": "10.00",
    }
    return make(MessageBatch, numbered, defaults)


def folds(*rows: dict[str, Any]) -> FoldBatch:
    """Approved conversions over 10.00 with a click of ours an hour before."""
    defaults = {
        "conversion_key": "key",
        "partner": "acme-shop",
        "conversion_id": "C-1",
        "kind": "sale",
        "facts": 1,
        "status": 3,
        "amount_minor": 1000,
        "currency": "EUR",
        "event_ns": NOON,
        "click_id": "click",
        "click_found": 1,
        "click_partner": "acme-shop",
        "click_subscriber": "ann",
        "clicked_ns": NOON - 3600 * 10**9,
        "click_visit": "visit",
    }
    return make(FoldBatch, list(rows), defaults)


def visits(*rows: dict[str, Any]) -> VisitBatch:
    """Opened visits of a member to acme-shop, with a document, one second long."""
    numbered = [{"visit_id": f"visit {n}", **row} for n, row in enumerate(rows)]
    defaults = {
        "version": 1,
        "trigger": 1,
        "subscriber_id": "ann",
        "partner": "acme-shop",
        "basis": 2,
        "opened_ns": NOON,
        "first_ns": NOON,
        "last_ns": NOON + 10**9,
        "sessions": 1,
        "http": 1,
        "documents": 1,
        "document_ns": NOON,
        "flow_id": "flow",
        "document_flow_id": "flow",
        "packet_number": 7,
        "document_packet": 7,
    }
    return make(VisitBatch, numbered, defaults)
