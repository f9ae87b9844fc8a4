"""What was known of members at a cut, in SQL: the rows of `MemberBatch` that rules ask about.

Facts are commands (`score/member_facts.py`) below the cut's position. Of two about one member and
time the one that was received later counts, and of two received at once the one with the larger
id: so the order of their arrival in the journal does not matter.

`CAME` tells which conversions facts may change that are new since the cut before: those that an
earlier cut found to be such a member's, bought at the fact's time or later. Whose they were is told
by the outcomes of earlier cuts; one that became somebody else's since is folded for that reason.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from pipeline.model.batches import MemberBatch
from pipeline.model.words import MEMBER_FACTS
from pipeline.rulebook.model import Rulebook
from pipeline.store.clickhouse_rows import batch_of
from pipeline.store.sink import Sink

KNOWN = f"""
SELECT c.subscriber_id AS subscriber_id, c.event_ns AS since_ns,
  argMax(c.body, tuple(c.received_ns, toString(c.command_id))) AS said
FROM commands_log AS c
WHERE c.kind = '{MEMBER_FACTS}' AND c.stream_offset < {{commands}}
  AND c.subscriber_id IN (SELECT member FROM whom)
GROUP BY subscriber_id, since_ns
"""
MEMBERS = """
SELECT subscriber_id, toInt64(since_ns) AS since_ns,
  toInt64(JSONExtractInt(said, 'joined_ns')) AS joined_ns,
  JSONExtractString(said, 'level') AS level, JSONExtractString(said, 'products') AS products
FROM known_members ORDER BY toString(subscriber_id), since_ns
"""
CAME = f"""
SELECT o.conversion_key AS conversion_key FROM (
  SELECT conversion_key, subscriber_id, event_ns FROM conversions_log
  WHERE fold < {{fold}} AND subscriber_id IN (
    SELECT subscriber_id FROM commands_log WHERE {{commands}} AND kind = '{MEMBER_FACTS}')
) AS o INNER JOIN (
  SELECT subscriber_id, min(event_ns) AS since_ns FROM commands_log
  WHERE {{commands}} AND kind = '{MEMBER_FACTS}' GROUP BY subscriber_id
) AS f ON f.subscriber_id = o.subscriber_id
WHERE o.event_ns >= f.since_ns
"""


def members(sink: Sink, position: Mapping[str, int], whom: np.ndarray) -> MemberBatch:
    """What is known of these subscribers (ids, each once) at `position`. Raises SinkError."""
    if not len(whom):
        return MemberBatch.empty()
    raw = np.ascontiguousarray(whom).tobytes()
    column = pa.Array.from_buffers(pa.binary(16), len(whom), [None, pa.py_buffer(raw)])
    asked = pa.RecordBatch.from_arrays([column], names=["member"])
    step = KNOWN.format(commands=int(position.get("commands", 0)))
    found = sink.staged({"known_members": step}, MEMBERS, {"whom": ("member UUID", asked)})
    return batch_of(MemberBatch, found)


def ask_members(rulebook: Rulebook) -> bool:
    """Does a rule ask who the member was?"""
    return any(
        rule.when.tenure_months_min or rule.when.levels or rule.when.products
        for partner in rulebook.partners
        for rule in partner.accruals
    )
