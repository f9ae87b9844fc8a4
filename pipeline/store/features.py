"""What the fraud score asks about conversions, in SQL over `_log` tables below a cut's position.

Given the folds of a cut, `evidence` gives for each of them, in the same order, figures about its
member and what people decided (`model/evidence.py` says what each figure is). Rules play no part:
the same rows below the position give the same figures whatever the thresholds are.

The **member** is the one of the click that the messages name, else whom the shop named. Of other
conversions whoever their messages name by a click of ours with that partner, or by a token, is
among their members; an address alone does not count, for whose it was may still change.

Every figure is about a time: clicks in an hour, visits that opened before the purchase, the record
when buying. So only facts that come late can change one, and `CAME` tells which conversions those
are: of visits all that bought afterwards, of clicks those within the hour, of messages those with
the same order reference or address, and what the same member bought later. One that was not told
this way is still asked again when it comes due.

Measured on two cores: see `tests/bench/clickhouse.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from pipeline.model.batches import FoldBatch
from pipeline.model.columns import id_words
from pipeline.model.evidence import (
    Evidence,
    FraudFeatures,
    ReviewBatch,
    Standing,
    TouchBatch,
)
from pipeline.model.identifiers import NO_ID as NO_SUBSCRIBER
from pipeline.model.identifiers import id_text, parse_id
from pipeline.store.clickhouse_rows import batch_of, id_array
from pipeline.store.sink import Given, Sink

Position = Mapping[str, int]
NO_ID = "toUUID('00000000-0000-0000-0000-000000000000')"
READ = ("basis", "bindings", "clicks", "commands", "purchases", "visits")
HOUR_NS, DAY_NS = 3_600 * 10**9, 86_400 * 10**9
ASKED = (
    "row UInt32, conversion_key UUID, partner String, event_ns Int64, amount_minor Int64,"
    " member UUID, click_id UUID, clicked_ns Int64, own_visit UUID"
)
REVIEW = "review"
TOUCHES_MAX = 100

MEMBERS = f"SELECT DISTINCT member FROM asked WHERE member != {NO_ID}"
MEMBER_CLICKS = """
SELECT click_id, subscriber_id, partner, clicked_ns, visit_id, channel,
  count() OVER (PARTITION BY subscriber_id ORDER BY clicked_ns
    RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS so_far
FROM (
  SELECT n.click_id AS click_id, any(n.subscriber_id) AS subscriber_id,
    any(n.partner) AS partner, any(n.clicked_ns) AS clicked_ns, any(n.visit_id) AS visit_id,
    any(n.channel) AS channel
  FROM clicks_log AS n
  WHERE n.stream_offset < {clicks} AND n.subscriber_id IN (SELECT member FROM members)
  GROUP BY n.click_id
)
"""
MEMBER_VISITS = """
SELECT n.visit_id AS visit_id, any(n.subscriber_id) AS subscriber_id, any(n.partner) AS partner,
  any(n.opened_ns) AS opened_ns, max(n.last_ns) AS last_ns,
  argMax(n.tracker_ns, n.stream_offset) AS tracker_ns, minIf(n.last_ns, n.mark != '') AS mark_ns,
  argMax(n.tracker_ns > 0 OR n.mark != '', n.stream_offset) AS marked,
  argMax(n.ambiguous, n.stream_offset) AS ambiguous
FROM visits_log AS n
WHERE n.stream_offset < {visits} AND n.subscriber_id IN (SELECT member FROM members)
GROUP BY n.visit_id
"""

# The messages of the conversions asked about and of those that may have to do with them.
RELEVANT = f"""
SELECT conversion_key, partner, order_ref, coupon, reason, click_ref, click_id, member_id, event_ns,
  amount_minor, status, match_hash, match_ns, stream_offset,
  if(status_ns > 0, status_ns, received_ns) AS at_ns
FROM purchases_log
WHERE stream_offset < {{purchases}} AND parked = 'none' AND (
  conversion_key IN (SELECT conversion_key FROM asked)
  OR order_ref != '' AND order_ref IN (
    SELECT order_ref FROM purchases_log WHERE conversion_key IN (SELECT conversion_key FROM asked))
  OR match_hash != {NO_ID} AND match_hash IN (
    SELECT match_hash FROM purchases_log WHERE conversion_key IN (SELECT conversion_key FROM asked))
  OR member_id != {NO_ID} AND member_id IN (SELECT member FROM members)
  OR click_id IN (SELECT click_id FROM member_clicks))
"""
NAMED_CLICKS = """
SELECT n.click_id AS click_id, any(n.subscriber_id) AS subscriber_id, any(n.partner) AS partner
FROM clicks_log AS n
WHERE n.stream_offset < {clicks} AND n.click_id IN (SELECT click_id FROM relevant)
GROUP BY n.click_id
"""
TOLD = f"""
SELECT r.*, k.click_id != {NO_ID} AS ours,
  if(ours AND k.partner = r.partner, k.subscriber_id, r.member_id) AS who
FROM relevant AS r LEFT JOIN named_clicks AS k ON k.click_id = r.click_id
"""
CONVERSIONS = """
SELECT n.conversion_key AS conversion_key, any(n.partner) AS partner,
  min(n.event_ns) AS bought_ns, minIf(n.at_ns, n.status = 'declined') AS declined_ns,
  groupUniqArrayIf(n.who, n.who != toUUID('00000000-0000-0000-0000-000000000000')) AS members,
  groupUniqArrayIf(n.order_ref, n.order_ref != '') AS refs,
  groupUniqArray(n.amount_minor) AS amounts
FROM told AS n GROUP BY n.conversion_key
"""

# What the conversion's own messages say.
SAYS = """
SELECT n.conversion_key AS conversion_key,
  argMaxIf(n.coupon, tuple(n.at_ns, n.coupon), n.coupon != '') AS coupon,
  max(n.click_ref != '' AND NOT n.ours OR n.reason = 'other_click') AS other_click
FROM told AS n WHERE n.conversion_key IN (SELECT conversion_key FROM asked)
GROUP BY n.conversion_key
"""

# How many clicks there were up to the one named, less those more than an hour before it.
FLOOD = f"""
SELECT o.row AS row, o.so_far - b.so_far AS in_hour FROM (
  SELECT a.row AS row, k.subscriber_id AS who, k.so_far AS so_far,
    k.clicked_ns - {HOUR_NS} AS ago_ns
  FROM asked AS a INNER JOIN member_clicks AS k ON k.click_id = a.click_id
) AS o ASOF LEFT JOIN (
  SELECT subscriber_id, clicked_ns, max(so_far) AS so_far FROM member_clicks
  GROUP BY subscriber_id, clicked_ns
) AS b ON b.subscriber_id = o.who AND b.clicked_ns < o.ago_ns
"""
# The visit to the partner that opened last before the purchase, and the one before the own visit.
TRAFFIC = """
SELECT a.row AS row, v.last_ns AS last_ns FROM asked AS a ASOF INNER JOIN (
  SELECT subscriber_id, partner, opened_ns, max(last_ns) AS last_ns FROM member_visits
  GROUP BY subscriber_id, partner, opened_ns
) AS v ON v.subscriber_id = a.member AND v.partner = a.partner AND v.opened_ns <= a.event_ns
"""
IDLE = """
SELECT o.row AS row, greatest(o.opened_ns - v.last_ns, 0) AS idle_ns FROM (
  SELECT a.row AS row, a.member AS member, w.opened_ns AS opened_ns
  FROM asked AS a INNER JOIN member_visits AS w ON w.visit_id = a.own_visit
) AS o ASOF INNER JOIN (
  SELECT subscriber_id, opened_ns, max(last_ns) AS last_ns FROM member_visits
  GROUP BY subscriber_id, opened_ns
) AS v ON v.subscriber_id = o.member AND v.opened_ns < o.opened_ns
"""
MARKED = """
SELECT a.row AS row, max(v.opened_ns) AS opened_ns
FROM asked AS a INNER JOIN member_visits AS v
  ON v.subscriber_id = a.member AND v.partner = a.partner
WHERE v.marked AND v.opened_ns <= a.event_ns
GROUP BY row
"""
RECORD = """
SELECT a.row AS row, count() AS orders,
  countIf(c.declined_ns > 0 AND c.declined_ns <= a.event_ns) AS reversed
FROM asked AS a INNER JOIN (
  SELECT conversion_key, bought_ns, declined_ns, arrayJoin(members) AS who FROM conversions
) AS c ON c.who = a.member
WHERE c.conversion_key != a.conversion_key AND c.bought_ns < a.event_ns
GROUP BY row
"""
# One order that two members claim, or that comes by two partners over the same amount.
CLAIMED = f"""
SELECT a.row AS row, uniqExact(c.conversion_key) AS claims
FROM (
  SELECT q.row AS row, q.conversion_key AS conversion_key, q.partner AS partner,
    q.event_ns AS event_ns, q.amount_minor AS amount_minor, q.member AS member,
    arrayJoin(d.refs) AS ref
  FROM asked AS q INNER JOIN conversions AS d ON d.conversion_key = q.conversion_key
  WHERE q.member != {NO_ID}
) AS a INNER JOIN (
  SELECT conversion_key, partner, bought_ns, members, amounts, arrayJoin(refs) AS ref
  FROM conversions WHERE notEmpty(members)
) AS c ON c.ref = a.ref
WHERE c.conversion_key != a.conversion_key
  AND (c.bought_ns, c.conversion_key) < (a.event_ns, a.conversion_key)
  AND (c.partner = a.partner AND arrayExists(m -> m != a.member, c.members)
    OR c.partner != a.partner AND has(c.members, a.member) AND has(c.amounts, a.amount_minor)
      AND c.bought_ns >= a.event_ns - {DAY_NS})
GROUP BY row
"""
CROWD = f"""
SELECT a.row AS row, uniqExact(t.who) AS members
FROM (
  SELECT DISTINCT q.row AS row, q.event_ns AS event_ns, t.match_hash AS match_hash
  FROM asked AS q INNER JOIN told AS t ON t.conversion_key = q.conversion_key
  WHERE t.match_hash != {NO_ID}
) AS a INNER JOIN told AS t ON t.match_hash = a.match_hash
WHERE t.who != {NO_ID} AND t.event_ns <= a.event_ns AND t.event_ns >= a.event_ns - {DAY_NS}
GROUP BY row
"""
# Whether an address that the messages name was, by all that is known, the member's at that time.
HELD = f"""
SELECT n.row AS row, n.match_hash AS match_hash, n.match_ns AS match_ns,
  argMax(if(b.kind = 'bind', b.subscriber_id, {NO_ID}),
    tuple(b.event_ns, b.received_ns, b.stream_offset)) = any(n.member) AS own
FROM (
  SELECT DISTINCT a.row AS row, a.member AS member, t.match_hash AS match_hash,
    t.match_ns AS match_ns
  FROM asked AS a INNER JOIN told AS t ON t.conversion_key = a.conversion_key
  WHERE t.match_hash != {NO_ID} AND a.member != {NO_ID}
) AS n INNER JOIN (
  SELECT address_hash, kind, subscriber_id, event_ns, received_ns, stream_offset
  FROM bindings_log
  WHERE stream_offset < {{bindings}} AND address_hash IN (SELECT match_hash FROM told)
) AS b ON b.address_hash = n.match_hash
WHERE b.event_ns <= n.match_ns
GROUP BY row, match_hash, match_ns
"""
FOREIGN = """
SELECT n.row AS row, max(NOT h.own) AS foreign
FROM (
  SELECT DISTINCT a.row AS row, t.match_hash AS match_hash, t.match_ns AS match_ns
  FROM asked AS a INNER JOIN told AS t ON t.conversion_key = a.conversion_key
  WHERE t.match_hash != toUUID('00000000-0000-0000-0000-000000000000')
    AND a.member != toUUID('00000000-0000-0000-0000-000000000000')
) AS n LEFT JOIN held AS h
  ON h.row = n.row AND h.match_hash = n.match_hash AND h.match_ns = n.match_ns
GROUP BY row
"""
STEPS = {
    "members": MEMBERS,
    "member_clicks": MEMBER_CLICKS,
    "member_visits": MEMBER_VISITS,
    "relevant": RELEVANT,
    "named_clicks": NAMED_CLICKS,
    "told": TOLD,
    "conversions": CONVERSIONS,
    "says": SAYS,
    "flood": FLOOD,
    "traffic": TRAFFIC,
    "idle": IDLE,
    "marked": MARKED,
    "record": RECORD,
    "claimed": CLAIMED,
    "crowd": CROWD,
    "held": HELD,
    "elsewhere": FOREIGN,
}
FEATURES = """
SELECT a.conversion_key AS conversion_key, t.last_ns AS traffic_ns,
  toUInt32(k.in_hour) AS clicks_hour, toUInt32(r.orders) AS orders_before,
  toUInt32(r.reversed) AS reversed_before, toUInt32(c.claims) AS claimed_before,
  toUInt32(w.members) AS members_at_address, toUInt8(f.foreign) AS address_foreign,
  toInt64(i.idle_ns) AS idle_ns, s.coupon AS coupon, toUInt8(s.other_click) AS other_click,
  m.opened_ns AS marked_ns
FROM asked AS a
LEFT JOIN traffic AS t ON t.row = a.row
LEFT JOIN flood AS k ON k.row = a.row
LEFT JOIN record AS r ON r.row = a.row
LEFT JOIN claimed AS c ON c.row = a.row
LEFT JOIN crowd AS w ON w.row = a.row
LEFT JOIN elsewhere AS f ON f.row = a.row
LEFT JOIN idle AS i ON i.row = a.row
LEFT JOIN marked AS m ON m.row = a.row
LEFT JOIN says AS s ON s.conversion_key = a.conversion_key
ORDER BY a.row
"""

# The member's clicks with the partner; the last hundred before the purchase. Another affiliate
# brought a click's visit where it passed a tracker, or bore a mark, by the time of the click.
TOUCHES = f"""
SELECT toInt64(a.row) AS row, k.click_id AS click_id, k.visit_id AS visit_id,
  k.channel AS channel, k.clicked_ns AS clicked_ns, toUInt8(v.ambiguous) AS ambiguous,
  toUInt8(v.tracker_ns > 0 AND v.tracker_ns <= k.clicked_ns
    OR v.mark_ns > 0 AND v.mark_ns <= k.clicked_ns) AS marked
FROM asked AS a INNER JOIN member_clicks AS k
  ON k.subscriber_id = a.member AND k.partner = a.partner
LEFT JOIN member_visits AS v ON v.visit_id = k.visit_id
WHERE a.click_id != {NO_ID} AND k.clicked_ns <= a.event_ns
ORDER BY row, clicked_ns DESC, click_id DESC LIMIT {TOUCHES_MAX} BY row
"""

# What people decided: of several the last.
DECIDED = f"""
SELECT toUUIDOrZero(JSONExtractString(body, 'conversion_key')) AS conversion_key,
  argMax(tuple(JSONExtractString(body, 'verdict'), actor, JSONExtractString(body, 'reason'),
    event_ns), stream_offset) AS said
FROM commands_log
WHERE stream_offset < {{commands}} AND kind = '{REVIEW}'
  AND JSONExtractString(body, 'about') != 'locked'
GROUP BY conversion_key
"""
REVIEWS = """
SELECT a.conversion_key AS conversion_key,
  toUInt8(multiIf(d.said.1 = 'release', 1, d.said.1 = 'decline', 2, 0)) AS verdict,
  d.said.2 AS actor, d.said.3 AS reason, d.said.4 AS decided_ns
FROM asked AS a LEFT JOIN decided AS d ON d.conversion_key = a.conversion_key
ORDER BY a.row
"""

# Each way in which evidence may have changed between two positions; see the head.
REVIEW_CAME = f"""
SELECT toUUIDOrZero(JSONExtractString(body, 'conversion_key')) AS conversion_key
FROM commands_log WHERE {{commands}} AND kind = '{REVIEW}'
"""
SAME_ORDER_CAME = f"""
SELECT conversion_key FROM purchases_log
WHERE stream_offset < {{purchases_end}} AND (
  order_ref != '' AND order_ref IN (SELECT order_ref FROM purchases_log WHERE {{purchases}})
  OR match_hash != {NO_ID} AND match_hash IN (
    SELECT match_hash FROM purchases_log WHERE {{purchases}}))
"""
# Clicks of those whose visit, click or message came, with when it was about.
TOUCHED = """
SELECT p.conversion_key AS conversion_key FROM purchases_log AS p INNER JOIN (
  SELECT k.click_id AS click_id, min(n.since_ns) AS since_ns FROM clicks_log AS k INNER JOIN (
    SELECT subscriber_id AS who, min(opened_ns) AS since_ns FROM visits_log
    WHERE {visits} GROUP BY who
    UNION ALL
    SELECT subscriber_id AS who, min(clicked_ns) AS since_ns FROM clicks_log
    WHERE {clicks} GROUP BY who
    UNION ALL
    SELECT who, min(event_ns) AS since_ns FROM ({news}) GROUP BY who
  ) AS n ON n.who = k.subscriber_id
  WHERE k.stream_offset < {clicks_end} GROUP BY click_id
) AS t ON t.click_id = p.click_id
WHERE p.stream_offset < {purchases_end} AND p.event_ns >= t.since_ns
"""
# The same of those whom a shop named.
NAMED_TOUCHED = f"""
SELECT p.conversion_key AS conversion_key FROM (
  SELECT conversion_key, event_ns, member_id AS who FROM purchases_log
  WHERE stream_offset < {{purchases_end}} AND member_id != {NO_ID}
  UNION ALL
  SELECT q.conversion_key, q.event_ns, b.subscriber_id AS who FROM purchases_log AS q INNER JOIN (
    SELECT DISTINCT address_hash, subscriber_id FROM bindings_log
    WHERE stream_offset < {{bindings_end}}
      AND address_hash IN (SELECT match_hash FROM purchases_log WHERE match_hash != {NO_ID})
  ) AS b ON b.address_hash = q.match_hash
  WHERE q.stream_offset < {{purchases_end}} AND q.match_hash != {NO_ID}
) AS p INNER JOIN (
  SELECT subscriber_id AS who, min(opened_ns) AS since_ns FROM visits_log
  WHERE {{visits}} GROUP BY who
  UNION ALL
  SELECT who, min(event_ns) AS since_ns FROM ({{news}}) GROUP BY who
) AS n ON n.who = p.who
WHERE p.event_ns >= n.since_ns
"""
# Messages that may change a member's record: of a conversion that is new, or a decline; and those
# whose click came now.
NEWS = f"""
SELECT if(k.click_id != {NO_ID}, k.subscriber_id, m.member_id) AS who, m.event_ns + 1 AS event_ns
FROM purchases_log AS m LEFT JOIN (
  SELECT click_id, any(subscriber_id) AS subscriber_id FROM clicks_log
  WHERE stream_offset < {{clicks_end}} AND click_id IN (
    SELECT click_id FROM purchases_log WHERE ({{purchases}}) OR click_id IN (
      SELECT click_id FROM clicks_log WHERE {{clicks}}))
  GROUP BY click_id
) AS k ON k.click_id = m.click_id
WHERE m.stream_offset < {{purchases_end}} AND (({{purchases}}) OR m.click_id IN (
    SELECT click_id FROM clicks_log WHERE {{clicks}}))
  AND (m.status = 'declined' OR m.conversion_key NOT IN (
    SELECT conversion_key FROM purchases_log WHERE stream_offset < {{purchases_start}})
    OR m.click_id IN (SELECT click_id FROM clicks_log WHERE {{clicks}}))
"""
CAME = (REVIEW_CAME, SAME_ORDER_CAME, TOUCHED, NAMED_TOUCHED)


def evidence(
    sink: Sink, folds: FoldBatch, position: Position, owners: Iterable[bytes] = ()
) -> Evidence:
    """What is known beside the folds, at `position`, in their order. Raises SinkError.

    `owners`: the members to whom coupons were issued.
    """
    at = {stream: int(position.get(stream, 0)) for stream in READ}
    given = {"asked": asked(folds)}
    steps = {name: sql.format(**at) for name, sql in STEPS.items()}
    if not len(folds):
        return Evidence(FraudFeatures.empty(), ReviewBatch.empty(), TouchBatch.empty())
    features = batch_of(FraudFeatures, sink.staged(steps, FEATURES, given))
    decided = {"decided": DECIDED.format(**at)}
    reviews = batch_of(ReviewBatch, sink.staged(decided, REVIEWS, given))
    first = ("members", "member_clicks", "member_visits")
    clicks = {name: steps[name] for name in first}
    touches = batch_of(TouchBatch, sink.staged(clicks, TOUCHES, given))
    assert len(features) == len(reviews) == len(folds), "a row for each fold"
    return Evidence(features, reviews, touches, _standing(sink, sorted(set(owners)), at["basis"]))


def _standing(sink: Sink, owners: Sequence[bytes], rows: int) -> Standing:
    """Since when each of these subscribers had which basis."""
    found: dict[bytes, list[tuple[int, int]]] = {}
    if owners:
        listed = ", ".join(f"toUUID('{id_text(who)}')" for who in owners)
        for who, since_ns, state in sink.rows(
            "SELECT subscriber_id, event_ns, toUInt8(state) FROM basis_log"
            f" WHERE stream_offset < {rows} AND subscriber_id IN ({listed})"
            " ORDER BY event_ns, received_ns, stream_offset"
        ):
            found.setdefault(parse_id(str(who)) or NO_SUBSCRIBER, []).append(
                (int(since_ns), int(state))
            )
    return found


def came(since: Mapping[str, str], ends: Mapping[str, int], start: Position) -> list[str]:
    """The questions for the keys of conversions whose evidence may have changed.

    `since`: by stream, the condition for rows that are new; `ends`: `STREAM_end` by stream.
    """
    known = {**since, **ends, "purchases_start": int(start.get("purchases", 0))}
    return [way.format(**known, news=NEWS.format(**known)) for way in CAME]


def asked(folds: FoldBatch) -> Given:
    """The conversions that are asked about, as the table `asked`."""
    found = folds.click_found > 0
    named = id_words(folds.click_id).any(axis=1)

    def chosen(ours: np.ndarray, theirs: np.ndarray) -> pa.Array:
        return id_array(np.where(found, ours, np.where(named, np.zeros_like(theirs), theirs)))

    arrays = {
        "row": pa.array(np.arange(len(folds), dtype=np.uint32)),
        "conversion_key": id_array(folds.conversion_key),
        "partner": pa.array([folds.partner[i] for i in range(len(folds))], pa.binary()),
        "event_ns": pa.array(folds.event_ns),
        "amount_minor": pa.array(folds.amount_minor),
        "member": chosen(folds.click_subscriber, folds.match_subscriber),
        "click_id": id_array(np.where(found, folds.click_id, np.zeros_like(folds.click_id))),
        "clicked_ns": pa.array(np.where(found, folds.clicked_ns, 0)),
        "own_visit": chosen(folds.click_visit, folds.match_visit),
    }
    return ASKED, pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))
