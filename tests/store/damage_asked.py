"""Damage to what was asked of a book and what it left, as in `damage.py`."""

from __future__ import annotations

from pipeline.model.words import Result
from tests.store.damage import C_LOT, NONE, Damage

OPEN = Result.AWAITING_APPROVAL

# Conversions, pending items, commands, orders, freezes and closed periods.
ASKED_FOR: Damage = {
    # Doubts
    "a doubt about nothing": (
        "INSERT INTO doubts VALUES (99, '[]')",
        ["command number 99 was doubtful, but was never asked"],
    ),
    "a doubt about what did not wait": (
        "INSERT INTO doubts VALUES (1, '[]')",
        ["was doubtful, but waited for nobody"],
    ),
    # Conversions and pending items
    "a pending amount": (
        "UPDATE pending_items SET amount = 21 WHERE {of_b}",
        ["subscriber {bob} has -1 more points pending", "conversion {b} should be pending with 20"],
    ),
    "a pending item's rule": (
        "UPDATE pending_items SET rule_version = zeroblob(16) WHERE {of_a}",
        ["pending item 1 of conversion {a} has another rule_version than the posting"],
    ),
    "a pending item's contract and time": (
        "UPDATE pending_items SET contract_version = 'x', event_ns = 1"
        " WHERE {of_e} AND generation = 2",
        ["pending item 2 of conversion {e} has another contract_version and event_ns than"],
    ),
    "a pending item's member": (
        "UPDATE pending_items SET subscriber_id = x'{ann_hex}' WHERE {of_b}",
        ["pending item 1 of conversion {b} has another subscriber_id than the posting"],
    ),
    "a pending item of no posting": (
        "UPDATE pending_items SET generation = 3 WHERE {of_e} AND generation = 2",
        ["pending item 3 of conversion {e} was opened by no posting"],
    ),
    "a pending item of no conversion": (
        "UPDATE pending_items SET conversion_number = 99 WHERE {of_b}",
        ["was opened by no posting", "conversion {b} should be pending"],
    ),
    "a pending item is gone": (
        "DELETE FROM pending_items WHERE {of_b}",
        ["subscriber {bob} has 20 more points pending than in open items", "{b} should be pending"],
    ),
    "confirmed more than pending": (
        "UPDATE pending_items SET confirmed = 41 WHERE {of_a}",
        ["pending item 1 of conversion {a} was 40 points"],
    ),
    "resolved in part": (
        "UPDATE pending_items SET returned = 0 WHERE {of_a}",
        ["pending item 1 of conversion {a} is resolved, but only 24 of 40 points"],
    ),
    "open and resolved": (
        "UPDATE pending_items SET confirmed = 1 WHERE {of_b}",
        ["pending item 1 of conversion {b} is open, but 1 of its points are resolved"],
    ),
    "open twice": (
        "UPDATE pending_items SET resolved = 0, returned = 0 WHERE {of_e}",
        ["pending item 2 of conversion {e} is open beside another one"],
    ),
    "a conversion's points": (
        "UPDATE conversions SET points = 31 WHERE conversion_key = x'{c_hex}'",
        ["conversion {c} should be available with 31 points", "conversion {c} has -1 PTS more",
         "points are issued, conversions come to"],
    ),
    "a conversion's state": (
        "UPDATE conversions SET state = 1 WHERE conversion_key = x'{c_hex}'",
        ["conversion {c} should be pending with 30 points of {ann}; pending: none; in lots: 30"],
    ),
    "a conversion's member": (
        "UPDATE conversions SET subscriber_id = x'{bob_hex}' WHERE conversion_key = x'{c_hex}'",
        ["conversion {c} should be available with 30 points of {bob}"],
    ),
    "a conversion's money": (
        "UPDATE conversions SET receivable_minor = 61, margin_minor = 57"
        " WHERE conversion_key = x'{a_hex}'",
        ["conversion {a} has -1 EUR more on partner:acme-shop:receivable"],
    ),
    "a conversion's rule": (
        f"UPDATE conversions SET pinned_rule_version = {NONE} WHERE conversion_key = x'{{c_hex}}'",
        ["conversion {c} has points but no rule"],
    ),
    "how often a conversion waited": (
        "UPDATE conversions SET generation = 1 WHERE conversion_key = x'{e_hex}'",
        ["conversion {e} waited 1 times, its postings 2"],
    ),
    "how many postings a conversion has": (
        "UPDATE conversions SET number = 1 WHERE conversion_key = x'{e_hex}'",
        ["conversion {e} has more postings than the 1 it says"],
    ),
    "a conversion is gone": (
        "DELETE FROM conversions WHERE conversion_key = x'{c_hex}'",
        ["conversion {c} has points but does not exist", "conversion {c} has 30 PTS more"],
    ),
    # Commands and what they left
    "what was asked": (
        "UPDATE requests SET points = 41 WHERE request_id = x'{o1_hex}'",
        ["order {o1} is not what was asked", "order {o1} has another points than its command"],
    ),
    "who was asked for": (
        "UPDATE requests SET subscriber_id = x'{ann_hex}' WHERE request_id = x'{j5_hex}'",
        ["adjust {j5} is not what was asked: it has another content"],
    ),
    "a command's body": (
        "UPDATE requests SET body = '{{}}' WHERE request_id = x'{o1_hex}'",
        ["order {o1} is not what was asked", "has another redemption and region than its command"],
    ),
    "a command's kind": (
        "UPDATE requests SET kind = 'migrate' WHERE request_id = x'{j1_hex}'",
        ["migrate {j1} is not what was asked", "has another source"],
    ),
    "a command's content": (
        "UPDATE requests SET content = zeroblob(16) WHERE request_id = x'{o2_hex}'",
        ["order {o2} is not what was asked: it has another content"],
    ),
    "a command's time": (
        "UPDATE requests SET event_ns = event_ns + 1 WHERE request_id IN"
        " (x'{j1_hex}', x'{f_hex}', x'{o1_hex}')",
        ["adjust {j1} moved something at another time", "refund {f} was accepted, but moved",
         "order {o1} moved something at another time"],
    ),
    "rules of one person": (
        "UPDATE requests SET result = 0 WHERE request_id = x'{v2_hex}'",
        ["publish {v2} was accepted without a second person"],
    ),
    "rules that nobody refused": (
        "UPDATE requests SET result = 12, decided_by = 0 WHERE request_id = x'{v1_hex}'",
        ["approve {a5} was accepted, but decided nothing"],
    ),
    "a refusal that moved": (
        "UPDATE requests SET result = 5 WHERE request_id = x'{o1_hex}'",
        ["order {o1} was refused, but moved something"],
    ),
    "an acceptance that did not": (
        "UPDATE requests SET result = 0 WHERE request_id = x'{o2_hex}'",
        ["order {o2} was accepted, but moved nothing"],
    ),
    "an answer that is none": (
        "UPDATE requests SET result = 99 WHERE request_id = x'{o2_hex}'",
        ["order {o2} has answer 99, which is none"],
    ),
    "a command that waits but moved": (
        f"UPDATE requests SET result = {int(OPEN)} WHERE request_id = x'{{j3_hex}}'",
        ["adjust {j3} waits for a second person, but moved", "was decided, but waits for a second"],
    ),
    "a command that does not wait any more": (
        "UPDATE requests SET result = 0 WHERE request_id = x'{j5_hex}'",
        ["adjust {j5} was accepted, but moved nothing"],
    ),
    "who decided": (
        "UPDATE requests SET decided_by = 1 WHERE request_id = x'{j3_hex}'",
        ["adjust {j3} was decided by nobody", "approve {a3} was accepted, but decided nothing"],
    ),
    "what was decided": (
        "UPDATE requests SET decided_by = (SELECT request_number FROM requests WHERE request_id ="
        " x'{x4_hex}') WHERE request_id = x'{j3_hex}'",
        ["adjust {j3} was decided by nobody", "approve {a3} was accepted, but decided nothing"],
    ),
    "a command is gone": (
        "DELETE FROM requests WHERE request_id = x'{j1_hex}'",
        ["command {j1} moved points, but was never asked", "was issued by no command"],
    ),
    "an order's command is gone": (
        "DELETE FROM requests WHERE request_id = x'{o1_hex}'",
        ["order {o1} is not what its command asked for"],
    ),
    "an order's points": (
        "UPDATE orders SET points = 41 WHERE order_id = x'{o1_hex}'",
        ["order {o1} stands for (41, 40, 0) points reserved, spent and refunded,"
         " its postings say (40, 40, 0)", "order {o1} has another points than its command"],
    ),
    "what an order spent": (
        "UPDATE orders SET committed = 16, refunded = 7 WHERE order_id = x'{r1_hex}'",
        ["order {r1} stands for (20, 16, 7) points", "its postings say (20, 15, 6)"],
    ),
    "that an order is open": (
        "UPDATE orders SET is_open = NOT is_open",
        ["order {o1} is open and holds 0", "order {r3} is closed and holds 5"],
    ),
    "how many steps an order took": (
        "UPDATE orders SET number = 2 WHERE order_id = x'{r1_hex}'",
        ["order {r1} took 2 steps, its postings are others"],
    ),
    "an order's member": (
        "UPDATE orders SET subscriber_id = x'{bob_hex}' WHERE order_id = x'{r3_hex}'",
        ["order {r3} has another subscriber_id than its command asked for"],
    ),
    "when an order's time is over": (
        "UPDATE orders SET hold_until_ns = hold_until_ns + 1 WHERE order_id = x'{r3_hex}'",
        ["order {r3} has another hold_until_ns than its command asked for"],
    ),
    "an order that was over before": (
        "UPDATE orders SET hold_until_ns = 5 WHERE order_id = x'{o1_hex}'",
        ["order {o1} has another hold_until_ns than its command asked for"],
    ),
    "an order's gift": (
        "UPDATE orders SET item = 'car', quantity = 1 WHERE order_id = x'{r1_hex}'",
        ["order {r1} has another item and quantity than its command asked for"],
    ),
    "where an order's points go": (
        "UPDATE orders SET redemption = 'cash', channel = 'x', payee = 'y'"
        " WHERE order_id = x'{o1_hex}'",
        ["order {o1} has another redemption and channel and payee than its command"],
    ),
    "an order of another command": (
        "UPDATE orders SET order_id = x'{o2_hex}' WHERE order_id = x'{o1_hex}'",
        ["order {o2} is not what its command asked for", "order {o1} moved points but does not"],
    ),
    "an order is gone": (
        "DELETE FROM orders WHERE order_id = x'{o1_hex}'",
        ["order {o1} moved points but does not exist", "took points of lots but does not exist"],
    ),
    "what an order took of a lot": (
        "UPDATE order_lots SET held = held + 1 WHERE held > 0",
        ["holds 5 points, orders hold 6 of it", "does not hold, spend and refund what it took",
         "holds and spent [6, 0] of lot"],
    ),
    "of which lot an order took": (
        f"UPDATE order_lots SET lot_id = {C_LOT} WHERE held > 0",
        ["its postings say [0, 0]", "order {r3} took points of lot"],
    ),
    "more refunded than spent of a lot": (
        "UPDATE order_lots SET refunded = 16 WHERE refunded = 6",
        ["took [0, 15, 16] of lot", "order {r1} does not hold, spend and refund what"],
    ),
    "what an order took is gone": (
        "DELETE FROM order_lots WHERE held > 0",
        ["orders hold 0 of it", "order {r3} took points of lot"],
    ),
    "a freeze": (
        "UPDATE freezes SET from_ns = from_ns + 1",
        ["freeze {z} is not what its command asked for"],
    ),
    "who is frozen": (
        "UPDATE freezes SET subscriber_id = x'{ann_hex}'",
        ["freeze {z} is not what its command asked for", "{ann} was frozen, its flags"],
    ),
    "that it is a freeze": (
        "UPDATE freezes SET frozen = NOT frozen",
        ["freeze {z} is not what its command asked for"],
    ),
    "a freeze that nobody asked for": (
        "UPDATE freezes SET request_id = x'{o2_hex}'",
        ["freeze {o2} of subscriber {eve} was asked by nobody", "freeze {z} was accepted, what it"],
    ),
    "a freeze is gone": (
        "DELETE FROM freezes",
        ["freeze {z} was accepted, what it asked for is not so", "{eve} was never frozen"],
    ),
    "which period is closed": (
        "UPDATE periods SET period = '2026-01'",
        ["period 2026-01 is not what its command closed"],
    ),
    "when a period was closed": (
        "UPDATE periods SET closed_ns = closed_ns + 1",
        ["period 2026-02 is not what its command closed, or was closed at another time"],
    ),
    "where the book stood": (
        "UPDATE periods SET link = zeroblob(32)",
        ["period 2026-02 was closed at posting", "whose link is another"],
    ),
    "at which posting the book stood": (
        "UPDATE periods SET postings = postings - 1",
        ["period 2026-02 was closed at posting", "whose link is another"],
    ),
    "a period that nobody closed": (
        "UPDATE periods SET request_id = x'{o2_hex}'",
        ["period 2026-02 was closed by nobody", "close_period {p} was accepted, what it asked"],
    ),
    "a closed period is gone": (
        "DELETE FROM periods",
        ["close_period {p} was accepted, what it asked for is not so"],
    ),
}  # fmt: skip
