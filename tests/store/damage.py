"""Damage to a book's tables by raw SQL, and words of the sentences that must be said of it.

{a}      the id of a conversion, command or member of the story in `test_book_audit.py`
{a_hex}  the same in SQL
{of_a}   chooses the pending items of a conversion
"""

from __future__ import annotations

LAST = "(SELECT max(posting_number) FROM postings)"
C_LOT = "(SELECT lot_id FROM lots WHERE conversion_key = x'{c_hex}')"
IMPORTED = "WHERE cause_id = x'{m_hex}'"
PASSED_ON = "WHERE cause_id = x'{t_hex}'"
NONE = "x'00000000000000000000000000000000'"
Damage = dict[str, tuple[str, list[str]]]

# Postings, with what they share, and what of them is not delivered.
BOOKED: Damage = {
    "an amount": (
        "UPDATE transfers SET amount = amount + 1 WHERE transfer_number = 1",
        ["posting 1 breaks the hash chain", "its transfers sum to", "more on programme:issued"],
    ),
    "an amount below zero": (
        "UPDATE transfers SET amount = -amount WHERE transfer_number = 1",
        ["a transfer (earn_pending) of posting 1 moves -40", "posting 1 breaks the hash chain"],
    ),
    "an amount beyond all numbers": (
        "UPDATE transfers SET amount = 9223372036854775807",
        ["posting 1 breaks the hash chain", "its transfers sum to"],
    ),
    "a kind": (
        "UPDATE transfers SET kind = 4 WHERE transfer_number = 1",
        ["posting 1 breaks the hash chain", "pending item 1 of conversion {a} was opened by no"],
    ),
    "a kind that is none": (
        "UPDATE transfers SET kind = 99 WHERE transfer_number = 1",
        ["posting 1 breaks the hash chain"],
    ),
    "an account of a transfer": (
        "UPDATE transfers SET debit = debit - 1 WHERE transfer_number = 1",
        ["posting 1 breaks the hash chain", "its transfers sum to"],
    ),
    "an account that is none": (
        "UPDATE transfers SET debit = -999 WHERE transfer_number = 1",
        ["posting 1 moves accounts that do not exist", "account number -999 has transfers but"],
    ),
    "an account of somebody else": (
        "UPDATE transfers SET credit = credit + 4 WHERE transfer_number = 1",
        ["posting 1 moves member:{bob}:pending, it is about another subscriber"],
    ),
    "the posting of a transfer": (
        "UPDATE transfers SET posting_number = 2 WHERE transfer_number = 1",
        ["transfer number 1 says that it is of another posting"],
    ),
    "a transfer is gone": (
        "DELETE FROM transfers WHERE transfer_number = 4",
        ["posting 3 should have transfers 3 to 6", "posting 3 breaks the hash chain"],
    ),
    "all transfers of a lapse are gone": (
        f"DELETE FROM transfers WHERE posting_number = {LAST}",
        ["should have transfers", "lapsed last at another time than its postings say"],
    ),
    "a transfer too many": (
        "INSERT INTO transfers SELECT transfer_number + 1, posting_number + 1, kind, debit, credit,"
        " amount FROM transfers ORDER BY transfer_number DESC LIMIT 1",
        ["belongs to no posting"],
    ),
    "how many transfers a posting has": (
        "UPDATE postings SET transfers = 0 WHERE posting_number = 1",
        ["posting 1 should have transfers 1 to 0", "posting 2 should have transfers"],
    ),
    "where a posting's transfers begin": (
        "UPDATE postings SET first_transfer = 9 WHERE posting_number = 1",
        ["posting 1 should have transfers 1 to 1"],
    ),
    "a posting's id": (
        "UPDATE postings SET posting_id = randomblob(16) WHERE posting_number = 1",
        ["posting 1 does not have the id of its cause", "posting 1 breaks the hash chain"],
    ),
    "a posting's cause": (
        f"UPDATE postings SET cause_id = {NONE} WHERE posting_number = 1",
        ["has no cause", "does not have the id of its cause", "breaks the hash chain"],
    ),
    "a posting's number of its cause": (
        "UPDATE postings SET cause_version = 7 WHERE posting_number = 1",
        ["does not have the id of its cause", "has more postings than the 3 it says"],
    ),
    "a posting's member": (
        "UPDATE postings SET subscriber_id = x'{bob_hex}' WHERE posting_number = 1",
        ["posting 1 breaks the hash chain", "it is about another subscriber", "is not linked to"],
    ),
    "a posting's time": (
        "UPDATE postings SET effective_ns = 1 WHERE cause_id = x'{j1_hex}'",
        ["breaks the hash chain", "adjust {j1} moved something at another time than its own"],
    ),
    "a posting's click": (
        f"UPDATE postings SET click_id = {NONE} WHERE posting_number = 1",
        ["posting 1 breaks the hash chain"],
    ),
    "a posting's visit": (
        f"UPDATE postings SET visit_id = {NONE} WHERE posting_number = 1",
        ["posting 1 breaks the hash chain"],
    ),
    "a posting's link": (
        "UPDATE postings SET link = zeroblob(32) WHERE posting_number = 3",
        ["posting 3 breaks the hash chain", "posting 4 breaks the hash chain"],
    ),
    "the posting before of a member": (
        "UPDATE postings SET previous = 0 WHERE posting_number = 3",
        ["posting 3 is not linked to the one before about its subscriber"],
    ),
    "a posting is gone": (
        "DELETE FROM postings WHERE posting_number = 4",
        ["postings 4 to 4 are missing", "posting 5 breaks the hash chain"],
    ),
    "the last posting is gone": (
        f"DELETE FROM postings WHERE posting_number = {LAST}",
        ["its head says posting", "the head of the hash chain", "belongs to no posting"],
    ),
    "whence postings come": (
        "UPDATE origins SET partner = 'x' WHERE origin_id = 1",
        ["posting 1 breaks the hash chain"],
    ),
    "by which consent they come": (
        "UPDATE origins SET consent_id = randomblob(16) WHERE origin_id = 1",
        ["posting 1 breaks the hash chain"],
    ),
    "their rule": (
        f"UPDATE origins SET rule_version = {NONE} WHERE origin_id = 1",
        ["posting 1 has no rule version", "has another rule_version than the posting that"],
    ),
    "an origin is gone": (
        "DELETE FROM origins WHERE origin_id = 1",
        ["posting 1 has no origin, or no booking"],
    ),
    "who booked": (
        "UPDATE bookings SET actor = 'x' WHERE booking_id = 1",
        ["posting 1 breaks the hash chain"],
    ),
    "the role of who booked": (
        "UPDATE bookings SET role = 'x' WHERE booking_id = 1",
        ["posting 1 breaks the hash chain"],
    ),
    "a booking's period": (
        "UPDATE bookings SET period = '1999-12' WHERE booking_id = 1",
        ["is in period 1999-12, but was booked in 2026-03"],
    ),
    "a period that is over": (
        "UPDATE bookings SET period = '1999-12' WHERE actor = 'cat'",
        ["is in period 1999-12, which was over then"],
    ),
    "a period that was closed": (
        "UPDATE bookings SET period = '2026-02', booked_ns = booked_ns - 2500000000000000",
        ["posting 1 breaks the hash chain", "in period 2026-02, which was closed before"],
    ),
    "a time of booking": (
        "UPDATE bookings SET booked_ns = booked_ns - 86400000000000 WHERE booking_id = 3",
        ["was booked at an earlier time"],
    ),
    "a booking is gone": (
        "DELETE FROM bookings",
        ["posting 1 has no origin, or no booking", "order {o2} was booked by nobody"],
    ),
    "who asked": (
        "UPDATE bookings SET actor = 'x' WHERE actor = 'cat'",
        ["request 12 breaks the hash chain: it, or who asked, was changed"],
    ),
    "that something was refused": (
        "UPDATE requests SET result = 4 WHERE request_number = (SELECT max(request_number)"
        " FROM requests WHERE result NOT IN (0, 18) AND decided_by = 0)",
        ["breaks the hash chain: it, or who asked, was changed"],
    ),
    "the last request": (
        "UPDATE heads SET requests_link = zeroblob(32)",
        ["the head of the chain is not the link of the last request"],
    ),
    "what somebody did": (
        "UPDATE trail SET reason = 'x' WHERE trail_number = 2",
        ["trail row 2 breaks the hash chain"],
    ),
    "that somebody did something": (
        "DELETE FROM trail WHERE trail_number = 2",
        ["trail rows 2 to 2 are missing", "and is not in the trail"],
    ),
    "where the trail stands": (
        "UPDATE heads SET trail = 1",
        ["the last trail row is", "the head says 1"],
    ),
    "the head's link": (
        "UPDATE heads SET link = zeroblob(32)",
        ["the head of the hash chain"],
    ),
    "where numbers stand": (
        "UPDATE heads SET postings = 1, transfers = 1, accounts = 1, members = 1, conversions = 1,"
        " requests = 1",
        ["its head says posting 1 and transfer 1", "accounts are numbered to", "members are",
         "conversions are numbered to", "requests are numbered to 24, the head says 1"],
    ),
    "the outbox ends early": (
        "DELETE FROM outbox WHERE first_transfer = (SELECT max(first_transfer) FROM outbox)",
        ["the outbox ends before transfer"],
    ),
    "the outbox has a hole": (
        "UPDATE outbox SET last_transfer = last_transfer - 1 WHERE first_transfer ="
        " (SELECT min(first_transfer) FROM outbox)",
        ["out of line"],
    ),
}  # fmt: skip

# Accounts, members and lots.
POINTS: Damage = {
    # Accounts and members
    "an account's name": (
        "UPDATE accounts SET account = 'programme:lost' WHERE account = 'programme:issued'",
        ["breaks the hash chain", "more on programme:lost"],
    ),
    "an account's commodity": (
        "UPDATE accounts SET commodity = 'USD' WHERE account = 'margin:acme-shop'",
        ["breaks the hash chain", "moves EUR to USD"],
    ),
    "an account is gone": (
        "DELETE FROM accounts WHERE account = 'programme:lapsed'",
        ["moves accounts that do not exist", "has transfers but does not exist"],
    ),
    "a balance": (
        "UPDATE accounts SET balance = balance - 5 WHERE account = 'programme:issued'",
        ["account programme:issued has", "all points together come to -5", "points are issued"],
    ),
    "what is between two members": (
        "UPDATE accounts SET balance = 5 WHERE account = 'programme:transit'",
        ["5 points are left between two members"],
    ),
    "a stock below zero": (
        "UPDATE accounts SET balance = -1 WHERE account = 'stock:cup:free'",
        ["account stock:cup:free is below zero: -1"],
    ),
    "a member's balance": (
        "UPDATE members SET available = available - 5 WHERE subscriber_id = x'{cid_hex}'",
        ["available has -", "more points available than in lots", "all points together"],
    ),
    "a balance below zero": (
        "UPDATE members SET pending = 7 WHERE subscriber_id = x'{bob_hex}'",
        ["account member:{bob}:pending is below zero: -7", "more points pending than in open"],
    ),
    "what is reserved": (
        "UPDATE members SET reserved = reserved - 1 WHERE subscriber_id = x'{dan_hex}'",
        ["account member:{dan}:reserved has -6", "{dan} has 1 more points reserved than in lots"],
    ),
    "a debt below zero": (
        "UPDATE members SET debt = -1 WHERE subscriber_id = x'{ann_hex}'",
        ["account member:{ann}:debt is below zero: -1"],
    ),
    "who owes and has": (
        "UPDATE members SET debt = 4 WHERE subscriber_id = x'{cid_hex}'",
        ["subscriber {cid} owes 4, and has points available"],
    ),
    "whose accounts they are": (
        "UPDATE members SET subscriber_id = x'01010101010101010101010101010101'"
        " WHERE subscriber_id = x'{bob_hex}'",
        ["breaks the hash chain", "it is about another subscriber"],
    ),
    "a member's number": (
        "UPDATE members SET member_number = 99 WHERE subscriber_id = x'{bob_hex}'",
        ["moves accounts that do not exist", "members are numbered to 99, the head says"],
    ),
    "a member is gone": (
        "DELETE FROM members WHERE subscriber_id = x'{bob_hex}'",
        ["moves accounts that do not exist", "has transfers but does not exist"],
    ),
    "since when somebody has points": (
        "UPDATE members SET since_ns = since_ns + 1 WHERE subscriber_id = x'{cid_hex}'",
        ["subscriber {cid} first had points at another time than its postings say"],
    ),
    "when somebody was last active": (
        "UPDATE members SET active_ns = active_ns + 1 WHERE subscriber_id = x'{ann_hex}'",
        ["subscriber {ann} was last active at another time than its postings say"],
    ),
    "that somebody is frozen": (
        "UPDATE members SET flags = 0",
        ["subscriber {eve} was frozen, its flags say otherwise"],
    ),
    "that somebody is not frozen": (
        "UPDATE members SET flags = 1 WHERE subscriber_id = x'{ann_hex}'",
        ["subscriber {ann} was never frozen, its flags say otherwise"],
    ),
    "a member's last posting": (
        "UPDATE members SET last_posting = last_posting - 1 WHERE subscriber_id = x'{ann_hex}'",
        ["the last posting about subscriber {ann} is another"],
    ),
    # Lots
    "points on a lot": (
        "UPDATE lots SET remaining = remaining + 1, amount = amount + 1"
        " WHERE conversion_key = x'{c_hex}'",
        ["its moves say", "subscriber {ann} has -1 more points available", "{c} should be"],
    ),
    "more left than granted": (
        "UPDATE lots SET remaining = amount + 1 WHERE conversion_key = x'{c_hex}'",
        ["has 31 of 30 points"],
    ),
    "points held": (
        "UPDATE lots SET held = held + 1 WHERE cause_id = x'{j1_hex}'",
        ["holds 6 points, orders hold 5 of it", "{dan} has -1 more points reserved than in lots"],
    ),
    "points lapsed": (
        "UPDATE lots SET lapsed = lapsed - 1 WHERE conversion_key = x'{g_hex}'",
        ["69 lapsed; its moves say 0 of 70, 0, 70"],
    ),
    "how often a lot lapsed": (
        "UPDATE lots SET changes = 2 WHERE conversion_key = x'{g_hex}'",
        ["lapsed or came back 2 times, its postings say otherwise"],
    ),
    "when a lot lapsed": (
        "UPDATE lots SET lapsed_ns = 5 WHERE conversion_key = x'{g_hex}'",
        ["lapsed last at another time than its postings say"],
    ),
    "how many points of a lot ran out last": (
        "UPDATE lots SET lapsed_last = 69 WHERE conversion_key = x'{g_hex}'",
        ["lapsed last at another time than its postings say, or with more"],
    ),
    "a lot's expiry": (
        "UPDATE lots SET expires_ns = expires_ns + 1 WHERE conversion_key = x'{c_hex}'",
        ["does not expire as calendar_year_plus(2) says"],
    ),
    "a lot's member": (
        "UPDATE lots SET subscriber_id = x'{bob_hex}' WHERE conversion_key = x'{c_hex}'",
        ["is not the lot of its cause and member", "conversion {c} should be available"],
    ),
    "a lot's cause": (
        "UPDATE lots SET cause_id = x'{a_hex}' WHERE conversion_key = x'{c_hex}'",
        ["is not the lot of its cause and member", "traces to another conversion than its own"],
    ),
    "what kind of cause a lot has": (
        "UPDATE lots SET cause_kind = 'order' WHERE conversion_key = x'{c_hex}'",
        ["traces to nothing that may issue points"],
    ),
    "a lot that no command issued": (
        "UPDATE lots SET cause_kind = 'command' WHERE conversion_key = x'{c_hex}'",
        ["was issued by no command that issues points", "conversion {c} should be available"],
    ),
    "the conversion behind a lot": (
        "UPDATE lots SET conversion_key = x'{a_hex}' WHERE conversion_key = x'{c_hex}'",
        ["traces to another conversion than its own"],
    ),
    "a lot's terms": (
        "UPDATE lots SET terms_id = 77 WHERE conversion_key = x'{c_hex}'",
        ["has no terms"],
    ),
    "terms that are none": (
        "UPDATE terms SET expiry_policy = 'soon'",
        ["does not expire as soon says"],
    ),
    "when a lot may be spent": (
        "UPDATE lots SET spendable_from_ns = 1 WHERE conversion_key = x'{c_hex}'",
        ["may be spent from another time than it was earned at"],
    ),
    "a lot's rule": (
        "UPDATE lots SET rule_version = zeroblob(16) WHERE conversion_key = x'{c_hex}'",
        ["has another rule_version than conversion {c}"],
    ),
    "a lot's contract and time": (
        "UPDATE lots SET contract_version = 'x', earned_ns = earned_ns + 1,"
        " spendable_from_ns = earned_ns + 1 WHERE conversion_key = x'{c_hex}'",
        ["has another contract_version and earned_ns than conversion {c}"],
    ),
    "a lot is gone": (
        "DELETE FROM lots WHERE conversion_key = x'{c_hex}'",
        ["has moves but does not exist", "conversion {c} should be available with 30 points"],
    ),
    "an imported lot's dates": (
        f"UPDATE lots SET earned_ns = 5, spendable_from_ns = 5 {IMPORTED}",
        ["has another earned_ns than its command says", "subscriber {cid} first had points at"],
    ),
    "an imported lot's first date": (
        "UPDATE lot_dates SET expires_ns = expires_ns + 1",
        ["has another expires_ns than its command says"],
    ),
    "an imported lot's rule, contract and conversion": (
        "UPDATE lots SET rule_version = zeroblob(16), contract_version = 'x', conversion_key ="
        f" x'{{a_hex}}' {IMPORTED}",
        ["has another conversion_key and contract_version and rule_version than its command says"],
    ),
    "an imported lot's source": (
        f"UPDATE lots SET terms_id = 1 {IMPORTED}",
        ["has another source"],
    ),
    "a lot given by hand": (
        "UPDATE lots SET expires_ns = expires_ns + 1 WHERE cause_id = x'{j1_hex}'",
        ["has another expires_ns than its command says", "than the lot it came from"],
    ),
    "a lot that was passed on": (
        f"UPDATE lots SET expires_ns = expires_ns + 1 {PASSED_ON}",
        ["has another expires_ns than the lot it came from"],
    ),
    "the origin of a lot that was passed on": (
        f"UPDATE lots SET conversion_key = x'{{a_hex}}' {PASSED_ON}",
        ["has another conversion_key than the lot it came from"],
    ),
    "whose lot was passed on": (
        f"UPDATE lots SET parent_lot_id = {C_LOT} {PASSED_ON}",
        ["came from a lot of another than who gave"],
    ),
    "a lot passed on from none": (
        f"UPDATE lots SET parent_lot_id = x'{{a_hex}}' {PASSED_ON}",
        ["came from a lot that does not exist"],
    ),
    "a lot that seems not passed on": (
        f"UPDATE lots SET parent_lot_id = {NONE} {PASSED_ON}",
        ["was issued by no command that issues points"],
    ),
    "a lot that seems passed on": (
        f"UPDATE lots SET parent_lot_id = {C_LOT} WHERE cause_id = x'{{j1_hex}}'",
        ["was passed on by no command"],
    ),
    "former dates of no lot": (
        "UPDATE lot_dates SET lot_id = x'{a_hex}'",
        ["lot {a} had other dates, but does not exist", "has another expires_ns than its command"],
    ),
    "former dates are gone": (
        "DELETE FROM lot_dates",
        ["has another expires_ns than its command says"],
    ),
    "which lots a transfer touched": (
        "DELETE FROM lot_moves WHERE amount_change = 0",
        ["points, but in lots 0", "its moves say", "breaks the hash chain"],
    ),
    "how a transfer touched a lot": (
        "UPDATE lot_moves SET held_change = held_change + 1 WHERE held_change > 0",
        ["reserved, 0 lapsed points, but in lots", "breaks the hash chain"],
    ),
    "a move of no transfer": (
        "INSERT INTO lot_moves SELECT 9999, lot_id, 0, 0, 0, 0 FROM lots LIMIT 1",
        ["transfer number 9999 has lot moves but does not exist"],
    ),
    "a move of no lot": (
        "UPDATE lot_moves SET lot_id = x'{a_hex}' WHERE transfer_number = 4",
        ["lot {a} has moves but does not exist", "breaks the hash chain"],
    ),
}  # fmt: skip
