"""What is known of each conversion at a cut: purchase messages folded, click or visit joined, in
SQL.

Only rows below the cut's position are read, and only `_log` tables, so the same cut gives the same
folds whenever it is asked. Messages that wait (`parked`) do not count.

**Fold order** of one conversion: (status time, sequence, rank of the status, what the message says,
those with an id of the sender's first, message id). Nothing in it depends on arrival: what a
message says stands before its id, because the id of a message whose sender gave none contains when
it came. Messages without sender time or sequence are in the order of their arrival, the offset;
where a conversion has both kinds, those stand at the time they were received. Walking in that
order:

- A message under an id that came before is that message again, wherever it stands: a line without
  an id of the sender's, read once more, neither undoes a decline nor refunds twice.
- Of neighbours that say the same, those count that the sender gave an id: two refunds of ten are
  twenty. Where none has one, they are one message.
- A `pending` after a confirmation that still stands says nothing new; a `declined` does.
- What changes a conversion after it was `locked` is left out until a person decides (`locked.py`).
- Of the others, the last one's status holds. The amount is the last absolute one and the sum of the
  deltas behind it. All of them may name a click or a member, and the last that does so counts.
- Line items are of the last message that states an absolute amount and lists them, and go along
  with that amount: a change of it later, without items, still has the same composition.

Purchase time is the earliest that the messages name: a correction does not start a window again.

**Which conversions**: those with new messages, those whose release came, and those whose click,
visit or binding arrived since the previous cut, or something else that they are judged by (see
`features.py` and `members.py`); all of them where rules arrived or nothing is known of a previous
cut. One too many is harmless: the book answers that it knows.

Measured on two cores: see `tests/bench/clickhouse.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.model.batches import FoldBatch
from pipeline.store.clickhouse_rows import batch_of
from pipeline.store.features import came
from pipeline.store.locked import DECISIONS, EVER_LOCKED, LOCKED_OUT, WITHOUT
from pipeline.store.members import CAME as MEMBER_CAME
from pipeline.store.sink import Sink

Position = Mapping[str, int]
NO_ID = "toUUID('00000000-0000-0000-0000-000000000000')"
READ = ("bindings", "clicks", "commands", "purchases", "rulebooks", "visits")

# Messages with their place in the fold order. `said` is what makes two messages the same fact; a
# message that comes again under its id (the digest of its line and when it was received, where the
# sender gave none) is the same message, wherever it stands.
MESSAGES = """
SELECT *, row_number() OVER fold_order AS place,
  lagInFrame(said) OVER (PARTITION BY conversion_key ORDER BY {order}
    ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS said_before,
  place > 1 AND said = said_before AS again,
  anyLast(if(status = 'pending', NULL, status)) OVER (PARTITION BY conversion_key ORDER BY {order}
    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS standing
FROM (
  SELECT *,
    tuple(status_ns, sequence, status, amount_mode, amount_minor, commission_minor, currency,
      event_ns, click_id, kind, member_id, match_hash, match_ns, items) AS said,
    min(order_by) OVER (PARTITION BY conversion_key) AS first_kind,
    multiIf(order_by = 'sender', status_ns, first_kind = 'sender', received_ns, 0) AS at_ns,
    if(order_by = 'sender', 0, stream_offset) AS arrival
  FROM (
    SELECT conversion_key, partner, conversion_id, kind, click_id, member_id, match_hash, match_ns,
      status, amount_mode, amount_minor, commission_minor, currency, event_ns, message_id, id_given,
      items, row_hash, status_ns, sequence, received_ns, order_by, stream_offset
    FROM purchases_log
    WHERE stream_offset < {purchases} AND parked = 'none' {chosen}
    ORDER BY stream_offset LIMIT 1 BY conversion_key, message_id
  )
)
WINDOW fold_order AS (PARTITION BY conversion_key ORDER BY {order})
"""
ORDER = "at_ns, order_by, arrival, sequence, status, said, id_given DESC, message_id"

# Runs of neighbours that say the same, and whether the sender gave any of a run an id.
RUNS = """
SELECT *, sum(NOT again) OVER (PARTITION BY conversion_key ORDER BY place
    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS run
FROM messages
"""
NUMBERED = """
SELECT *, max(id_given) OVER (PARTITION BY conversion_key, run) AS numbered FROM runs
"""

# Which messages count, and where the last absolute amount stands.
COUNTED = """
SELECT *,
  if(numbered, id_given, NOT again)
    AND NOT (status = 'pending' AND standing IS NOT NULL AND standing != 'declined') AS counts,
  maxIf(place, counts AND amount_mode = 'absolute') OVER (PARTITION BY conversion_key) AS base,
  counts AND (place = base OR place > base AND amount_mode = 'delta') AS adds
FROM numbered
"""

CONVERSIONS = f"""
SELECT m.conversion_key AS conversion_key, any(m.partner) AS partner,
  any(m.conversion_id) AS conversion_id,
  argMaxIf(m.kind, m.place, m.kind != '') AS kind,
  count() AS facts, groupBitXor(m.row_hash) AS facts_hash,
  argMaxIf(m.status, m.place, m.counts) AS status,
  sumIf(m.amount_minor, m.adds) AS amount_minor,
  sumIf(m.commission_minor, m.adds) AS commission_minor,
  argMaxIf(m.currency, m.place, m.currency != '') AS currency,
  min(m.event_ns) AS event_ns,
  argMaxIf(m.click_id, m.place, m.click_id != {NO_ID}) AS click_id,
  argMaxIf(tuple(m.member_id, m.match_hash, m.match_ns), m.place,
    m.member_id != {NO_ID} OR m.match_hash != {NO_ID}) AS named,
  argMaxIf(tuple(m.items, m.amount_minor), m.place,
    m.counts AND m.amount_mode = 'absolute' AND m.items != '') AS itemised
FROM counted AS m GROUP BY m.conversion_key
"""

# The click that the messages name, and the newest version of its visit.
CLICKS = """
SELECT click_id, argMax(tuple(partner, subscriber_id, clicked_ns, visit_id), stream_offset) AS click
FROM clicks_log
WHERE stream_offset < {clicks} AND click_id IN (SELECT click_id FROM conversions)
GROUP BY click_id
"""
CLICK_VISITS = """
SELECT n.visit_id AS visit_id, argMax(n.ambiguous, n.stream_offset) AS ambiguous
FROM visits_log AS n
WHERE n.stream_offset < {visits} AND n.visit_id IN (SELECT click.4 FROM clicks)
GROUP BY n.visit_id
"""

# Whom the shop named: a member, or whoever held the address then, by all that is known at the cut.
HOLDERS = f"""
SELECT c.conversion_key AS conversion_key,
  argMax(tuple(b.kind, b.subscriber_id),
    tuple(b.event_ns, b.received_ns, b.stream_offset)) AS holder
FROM conversions AS c INNER JOIN (
  SELECT address_hash, kind, subscriber_id, event_ns, received_ns, stream_offset FROM bindings_log
  WHERE stream_offset < {{bindings}} AND address_hash IN (SELECT named.2 FROM conversions)
) AS b ON b.address_hash = c.named.2
WHERE c.named.1 = {NO_ID} AND c.named.2 != {NO_ID} AND b.event_ns <= c.named.3
GROUP BY conversion_key
"""
MEMBERS = f"""
SELECT c.conversion_key AS conversion_key, c.partner AS partner, c.event_ns AS event_ns,
  multiIf(c.named.1 != {NO_ID}, c.named.1, h.holder.1 = 'bind', h.holder.2, {NO_ID}) AS member
FROM conversions AS c LEFT JOIN holders AS h ON h.conversion_key = c.conversion_key
WHERE member != {NO_ID}
"""
MEMBER_VISITS = """
SELECT m.conversion_key AS conversion_key,
  argMax(tuple(v.visit_id, v.opened_ns, v.marked, v.ambiguous, v.basis),
    tuple(v.opened_ns, v.visit_id)) AS visit
FROM members AS m INNER JOIN (
  SELECT n.visit_id AS visit_id, any(n.subscriber_id) AS subscriber_id, any(n.partner) AS partner,
    any(n.opened_ns) AS opened_ns,
    argMax(n.tracker_ns > 0 OR n.mark != '', n.stream_offset) AS marked,
    argMax(n.ambiguous, n.stream_offset) AS ambiguous, argMax(n.basis, n.stream_offset) AS basis
  FROM visits_log AS n
  WHERE n.stream_offset < {visits} AND n.subscriber_id IN (SELECT member FROM members)
  GROUP BY n.visit_id
) AS v ON v.subscriber_id = m.member AND v.partner = m.partner
WHERE v.opened_ns <= m.event_ns
GROUP BY conversion_key
"""

JOINED = {
    "clicks": CLICKS,
    "click_visits": CLICK_VISITS,
    "holders": HOLDERS,
    "members": MEMBERS,
    "member_visits": MEMBER_VISITS,
}

FOLDS = f"""
SELECT c.conversion_key AS conversion_key, c.partner AS partner, c.conversion_id AS conversion_id,
  c.kind AS kind, toUInt32(c.facts) AS facts, c.facts_hash AS facts_hash,
  toUInt8(c.status) AS status, c.amount_minor AS amount_minor,
  c.commission_minor AS commission_minor, c.currency AS currency, c.event_ns AS event_ns,
  c.click_id AS click_id,
  toUInt8(k.click_id != {NO_ID}) AS click_found, k.click.1 AS click_partner,
  k.click.2 AS click_subscriber, k.click.3 AS clicked_ns, k.click.4 AS click_visit,
  m.member AS match_subscriber, v.visit.1 AS match_visit, v.visit.2 AS match_visit_ns,
  toUInt8(v.visit.3) AS match_marked, toUInt8(v.visit.4) AS match_ambiguous,
  toUInt8(kv.ambiguous) AS visit_ambiguous, toUInt8(v.visit.5) AS match_basis,
  c.itemised.1 AS items, c.itemised.2 AS items_minor
FROM conversions AS c
LEFT JOIN clicks AS k ON k.click_id = c.click_id
LEFT JOIN click_visits AS kv ON kv.visit_id = k.click.4
LEFT JOIN members AS m ON m.conversion_key = c.conversion_key
LEFT JOIN member_visits AS v ON v.conversion_key = c.conversion_key
"""

# Each way in which something may have happened to a conversion between two positions.
CHANGED = """
SELECT conversion_key FROM purchases_log WHERE {purchases}
"""
CLICK_CAME = """
SELECT conversion_key FROM purchases_log WHERE stream_offset < {purchases_end} AND click_id IN (
  SELECT click_id FROM clicks_log WHERE {clicks}
  UNION ALL
  SELECT click_id FROM clicks_log WHERE stream_offset < {clicks_end} AND visit_id IN (
    SELECT visit_id FROM visits_log WHERE {visits}))
"""
VISIT_CAME = f"""
SELECT conversion_key FROM purchases_log
WHERE stream_offset < {{purchases_end}} AND member_id != {NO_ID} AND (member_id, partner) IN (
  SELECT subscriber_id, partner FROM visits_log WHERE {{visits}})
UNION ALL
SELECT conversion_key FROM purchases_log
WHERE stream_offset < {{purchases_end}} AND match_hash != {NO_ID} AND (match_hash, partner) IN (
  SELECT b.address_hash, v.partner FROM bindings_log AS b INNER JOIN (
    SELECT DISTINCT subscriber_id, partner FROM visits_log WHERE {{visits}}
  ) AS v ON v.subscriber_id = b.subscriber_id WHERE b.stream_offset < {{bindings_end}})
"""
BINDING_CAME = f"""
SELECT conversion_key FROM purchases_log
WHERE stream_offset < {{purchases_end}} AND match_hash != {NO_ID} AND match_hash IN (
  SELECT address_hash FROM bindings_log WHERE {{bindings}})
"""
CAME_DUE = """
SELECT conversion_key FROM (
  SELECT conversion_key, argMax(tuple(state, release_ns), tuple(fold, cut)) AS last
  FROM conversions_log WHERE fold < {fold} GROUP BY conversion_key)
WHERE last.1 = 'pending' AND last.2 > 0 AND last.2 <= {now_ns}
"""


def folds(
    sink: Sink,
    position: Position,
    previous: Position | None,
    now_ns: int,
    fold: int,
) -> FoldBatch:
    """The folds at `position` of all conversions that something happened to since `previous`.

    `previous` is the position of the cut before, None for all conversions; `fold` the number under
    which targets are sent: what became due is told by outcomes of lower ones. Rows come in the
    order of purchase time, then conversion key. Raises SinkError.
    """
    found = batch_of(FoldBatch, sink.staged(steps(position, previous, now_ns, fold), FOLDS))
    keys = np.ascontiguousarray(found.conversion_key).view("S16").reshape(-1)
    order = np.lexsort((keys, found.event_ns))
    return found.take(order)


def steps(position: Position, previous: Position | None, now_ns: int, fold: int) -> dict[str, str]:
    """The questions, by the name of the table that each answer is kept in for those that follow.

    One question for all is as quick to answer, but takes ten times as long to be understood.
    """
    at = {stream: int(position.get(stream, 0)) for stream in READ}
    found, among = {}, ""
    happened = chosen(position, previous, now_ns, fold)
    if happened is not None:
        found["chosen"] = happened
        among = "AND conversion_key IN (SELECT conversion_key FROM chosen)"
    found["locked_out"] = exceptions(at, among)
    left = f"{among} {WITHOUT}"
    messages = MESSAGES.format(order=ORDER, purchases=at["purchases"], chosen=left)
    parts = {"messages": messages, "runs": RUNS, "numbered": NUMBERED, "counted": COUNTED}
    named = ", ".join(f"{name} AS ({sql})" for name, sql in parts.items())
    found["conversions"] = f"WITH {named} {CONVERSIONS}"
    for name, sql in JOINED.items():
        found[name] = sql.format(**at)
    return found


def chosen(position: Position, previous: Position | None, now_ns: int, fold: int) -> str | None:
    """The question for the keys of the conversions to fold; None where it is all of them."""
    at = {stream: int(position.get(stream, 0)) for stream in READ}
    if previous is None or previous.get("rulebooks", 0) < at["rulebooks"]:
        return None
    return _happened(at, previous, now_ns, fold)


def exceptions(at: Position, among: str = "") -> str:
    """The question for messages that came after `locked` and that no decision lets count."""
    ever = EVER_LOCKED.format(purchases=at["purchases"])
    messages = MESSAGES.format(order=ORDER, purchases=at["purchases"], chosen=f"{among} {ever}")
    return LOCKED_OUT.format(messages=messages, decisions=DECISIONS.format(commands=at["commands"]))


def _happened(at: Position, previous: Position, now_ns: int, fold: int) -> str:
    """The keys of conversions that something happened to."""
    since = {
        stream: f"stream_offset >= {int(previous.get(stream, 0))} AND stream_offset < {end}"
        for stream, end in at.items()
    }
    ends = {f"{stream}_end": end for stream, end in at.items()}
    ways = (CHANGED, CLICK_CAME, VISIT_CAME, BINDING_CAME)
    asked = [way.format(**since, **ends) for way in ways] + came(since, ends, previous)
    asked.append(MEMBER_CAME.format(**since, fold=int(fold)))
    return "UNION ALL".join([*asked, CAME_DUE.format(fold=int(fold), now_ns=int(now_ns))])
