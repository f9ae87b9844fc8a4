"""Changes after `locked`: the network said that nothing would change any more, and then it did.

Such a message is an exception: it has no effect on the fold until a person decides. It is one that
comes, in fold order, after the first `locked` of its conversion and is anything but `locked` or
`paid` without another amount (no amount, or the absolute one that was last told up to the lock).
A decision (command `review` about `locked`) covers the messages received until then: `release` lets
them count, `decline` leaves them out for good; the last decision counts. What is received later is
asked about again.
"""

from __future__ import annotations

REVIEW, ABOUT = "review", "locked"

DECISIONS = f"""
SELECT toUUIDOrZero(JSONExtractString(body, 'conversion_key')) AS conversion_key,
  argMax(tuple(JSONExtractString(body, 'verdict'), event_ns), stream_offset) AS said
FROM commands_log
WHERE stream_offset < {{commands}} AND kind = '{REVIEW}'
  AND JSONExtractString(body, 'about') = '{ABOUT}'
GROUP BY conversion_key
"""
# `{messages}`: the messages of conversions that were locked, with their place in the fold order.
LOCKED_OUT = """
SELECT m.conversion_key AS conversion_key, m.message_id AS message_id, m.partner AS partner,
  m.conversion_id AS conversion_id, m.status AS status, m.received_ns AS received_ns,
  if(d.said.2 >= m.received_ns, d.said.1, '') AS verdict
FROM (
  SELECT *, argMaxIf(amount_minor, place, amount_mode = 'absolute'
      AND place <= locked_place) OVER (PARTITION BY conversion_key) AS amount_then
  FROM (
    SELECT *, minIf(place, status = 'locked') OVER (PARTITION BY conversion_key) AS locked_place
    FROM ({messages})
  )
) AS m LEFT JOIN ({decisions}) AS d ON d.conversion_key = m.conversion_key
WHERE m.locked_place > 0 AND m.place > m.locked_place AND verdict != 'release'
  AND NOT (m.status IN ('locked', 'paid') AND (m.amount_mode = 'delta' AND m.amount_minor = 0
  OR m.amount_mode = 'absolute' AND m.amount_minor = m.amount_then))
"""
# What limits the messages read: here to those conversions, in the fold to what counts.
EVER_LOCKED = """
AND conversion_key IN (SELECT conversion_key FROM purchases_log
  WHERE stream_offset < {purchases} AND parked = 'none' AND status = 'locked')
"""
WITHOUT = """
AND (conversion_key, message_id) NOT IN (SELECT conversion_key, message_id FROM locked_out)
"""
