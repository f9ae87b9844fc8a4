"""What time alone brings: reservations whose time is over, and lots that lapse.

Both are decided by event time and booked at a cut: effective when it happened, known when the cut
came. Reservations end first, since what they give back may have lapsed meanwhile.
"""

from __future__ import annotations

from pipeline.ledger.moving import lapse
from pipeline.ledger.orders import release_due
from pipeline.ledger.state import LedgerState
from pipeline.ledger.transfers import Posting


def post_due(state: LedgerState, members: list[bytes], now_ns: int) -> tuple[list[Posting], int]:
    """End what is due of these members by `now_ns`; the postings, and how many are releases."""
    released: list[Posting] = []
    due = []
    for who in members:
        member = state.members[who]
        released += release_due(state, member, now_ns)
        due += [
            (until_ns, lot.lot_id, lot, member)
            for lot in member.lots.values()
            if lot.remaining and (until_ns := state.expiry_of(lot)) <= now_ns
        ]
    due.sort(key=lambda each: each[:2])
    lapsed = [lapse(state, member, lot, until_ns) for until_ns, _, lot, member in due]
    return [*released, *lapsed], len(released)
