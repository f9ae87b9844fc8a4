"""What conversions that a cut does not touch hold of caps and budgets, in SQL.

Given the same position, previous position and number as the cut's folds, `usage` sums the points
that rules with limits gave: of each conversion by the last target that the book accepted under a
lower number, leaving out the conversions that the cut folds, for those are rated again. Every cut
that is asked once more gets the same answer. Nothing is kept here that `conversions_log` does not
say: the parts of a target stand in its explanation, and a target without any is one part.

Times are rounded down to quarters of an hour, from which days and months follow in every zone;
members and times are left out where the rule does not ask for them, so a budget is one row.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.model.batches import UsageBatch
from pipeline.model.words import Result
from pipeline.rulebook.fields import NAME
from pipeline.rulebook.model import Accrual, Rulebook
from pipeline.store.clickhouse_rows import batch_of, id_array
from pipeline.store.folds import NO_ID, Position, chosen
from pipeline.store.sink import Given, Sink

QUARTER_NS = 900 * 10**9
ACCEPTED = ", ".join(f"'{r.name.lower()}'" for r in (Result.OK, Result.EXISTS))

# The parts of the last target that was accepted for each conversion.
HELD = f"""
SELECT arrayJoin(held.4) AS part, held.1 AS state, held.2 AS who, held.3 AS at_ns
FROM (
  SELECT argMax(tuple(state, subscriber_id, event_ns,
      if(empty(parts), [tuple(toString(rule_id), points)], parts)), tuple(fold, cut)) AS held
  FROM (
    SELECT conversion_key, state, subscriber_id, event_ns, rule_id, points, fold, cut,
      JSONExtract(explanation, 'parts', 'Array(Tuple(String, Int64))') AS parts
    FROM conversions_log
    WHERE result IN ({ACCEPTED}) AND fold < {{fold}} AND partner IN ({{partners}})
      AND conversion_key NOT IN (SELECT conversion_key FROM chosen)
  )
  GROUP BY conversion_key
)
"""
USAGE = f"""
SELECT part.1 AS rule_id,
  if(rule_id IN ({{by_member}}), who, {NO_ID}) AS subscriber_id,
  if(rule_id IN ({{by_time}}), intDiv(at_ns, {QUARTER_NS}) * {QUARTER_NS}, toInt64(0)) AS event_ns,
  toInt64(sum(part.2)) AS points
FROM held WHERE state != 'none' AND rule_id IN ({{rules}})
GROUP BY rule_id, subscriber_id, event_ns
ORDER BY rule_id, subscriber_id, event_ns
"""


class Limits(NamedTuple):
    """Which rules have caps or a budget: their ids, those that ask for members, for times, and
    their partners.
    """

    rules: frozenset[str]
    by_member: frozenset[str]
    by_time: frozenset[str]
    partners: frozenset[str]


def limits_of(rulebooks: Iterable[Rulebook]) -> Limits:
    """The limits of all versions of the rules."""
    found = [
        (partner.id, accrual)
        for rulebook in rulebooks
        for partner in rulebook.partners
        for accrual in partner.accruals
        if accrual.is_limited
    ]
    return Limits(
        frozenset(accrual.id for _, accrual in found),
        frozenset(accrual.id for _, accrual in found if _asks(accrual, "member")),
        frozenset(accrual.id for _, accrual in found if _asks(accrual, "day", "month")),
        frozenset(partner for partner, _ in found),
    )


def _asks(accrual: Accrual, *words: str) -> bool:
    caps = accrual.caps
    return any(getattr(caps, n) for n in type(caps).__slots__ if any(w in n for w in words))


def usage(
    sink: Sink,
    position: Position,
    previous: Position | None,
    now_ns: int,
    fold: int,
    limits: Limits,
) -> UsageBatch:
    """What others hold; the arguments are those of `folds.folds`. Raises SinkError."""
    touched = chosen(position, previous, now_ns, fold)
    if touched is None or not limits.rules:  # every conversion is folded, or nothing is limited
        return UsageBatch.empty()
    return _held(sink, fold, limits, steps={"chosen": touched})


def usage_of_others(
    sink: Sink, conversion_keys: np.ndarray, fold: int, limits: Limits
) -> UsageBatch:
    """What all conversions but these (an ID column) hold, by outcomes of lower numbers than `fold`.

    Raises SinkError.
    """
    if not limits.rules:
        return UsageBatch.empty()
    keys = pa.record_batch({"conversion_key": id_array(conversion_keys)})
    return _held(sink, fold, limits, given={"chosen": ("conversion_key UUID", keys)})


def _held(
    sink: Sink,
    fold: int,
    limits: Limits,
    steps: dict[str, str] | None = None,
    given: dict[str, Given] | None = None,
) -> UsageBatch:
    """The sums; the table `chosen` has the keys of conversions to leave out."""
    names = {name: _listed(getattr(limits, name)) for name in Limits._fields}
    steps = {**(steps or {}), "held": HELD.format(fold=int(fold), **names)}
    return batch_of(UsageBatch, sink.staged(steps, USAGE.format(**names), given))


def _listed(names: Iterable[str]) -> str:
    assert all(NAME.match(name) for name in names), names
    return ", ".join(f"'{name}'" for name in sorted(names)) or "''"
