"""Which click is a sale's, among all that the member made? Attribution models, coupons, soft mode.

Given the attribution by the click that the messages name (`attribute.py`), the member's other
clicks and what the contract says, `credited` gives the attribution that pays, and what every model
would have paid. The **named click tells whose sale it is**; models choose among all clicks of that
member with that partner inside the contract's window, so none of them moves points to somebody
else. A click whose visit is ambiguous, or that another affiliate had brought (a mark or tracker by
the time of the click), makes no claim.

    last       the last of them: pays where the contract says nothing
    first      the first of them
    position   shares for the first, for those between and for the last (40, 20, 40 % unless the
               policy says otherwise; where there are none between, the other two share in
               proportion). Reports count shares; as the paying model the largest pays, of
               equal ones the later
    coupon     the member to whom the coupon was issued; without one the last click

**Coupon.** A sale without a click, with a coupon that the contract lists for a member, is that
member's under every model; under `coupon` also one with a click. The member has to have consented
at the time of purchase. A coupon for a channel only is credited to the channel and pays nobody.

**Stand down.** Where a click of ours would count but for another affiliate, the reason is
STOOD_DOWN. In **soft mode** any sign of another's click is enough: the messages say so (a click
that is not ours, or the reason `other_click`), or a visit to the partner within the window bore a
mark, be it after our click. Our own link must then not lead through a tracker itself.

About 10 microseconds a row.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from pipeline.model.batches import FoldBatch
from pipeline.model.evidence import Evidence
from pipeline.model.identifiers import NO_ID, id_text
from pipeline.model.words import Basis, TargetReason
from pipeline.rulebook.model import Contract, Rulebook
from pipeline.rulebook.policies import Coupon, Shares
from pipeline.score.attribute import ATTRIBUTED, Attribution

COUPON, FIRST, LAST, POSITION = "coupon", "first", "last", "position"
CHOOSING = (ATTRIBUTED, TargetReason.OUTSIDE_WINDOW)


class Touch(NamedTuple):
    """A click, in the order of time."""

    clicked_ns: int
    click_id: bytes
    visit_id: bytes
    channel: str
    ambiguous: int
    marked: int


class Credited(NamedTuple):
    """The attribution that pays, and by row what is to be told of it."""

    found: Attribution
    told: list[dict[str, Any]]


def credited(
    folds: FoldBatch,
    found: Attribution,
    evidence: Evidence,
    contracts: Sequence[Contract | None],
    shares: Shares,
) -> Credited:
    """Choose among the clicks of each conversion; `contracts` by row."""
    result = Attribution(*(column.copy() for column in found))
    told: list[dict[str, Any]] = [{} for _ in contracts]
    touches = _touches(evidence, len(folds))
    for row, contract in enumerate(contracts):
        if contract is None:
            continue
        coupon = _coupon(evidence.features.coupon.text(row), contract)
        if coupon is None and not touches[row] and not contract.soft:
            continue
        event_ns = int(folds.event_ns[row])
        inside = _inside(touches[row], event_ns, contract)
        candidates = [t for t in inside if not (t.ambiguous or t.marked)]
        if _chooses(result, row, inside, candidates):
            touch = chosen(contract.attribution, candidates, shares)
            result.reason[row] = ATTRIBUTED
            result.subscriber_id[row] = folds.click_subscriber[row]
            result.click_id[row] = np.void(touch.click_id)
            result.visit_id[row] = np.void(touch.visit_id)
        _honour(result, row, contract, coupon, evidence, event_ns)
        if contract.soft and _another(evidence, row, event_ns, contract):
            _lose(result, row)
        ours = found.by_click[row] and found.reason[row] in CHOOSING
        member = folds.click_subscriber[row].tobytes()
        models = by_model(candidates if ours else (), member, coupon, shares)
        told[row] = {"attributions": models} if models else {}
    return Credited(result, told)


def coupon_owners(rulebooks: Iterable[Rulebook]) -> set[bytes]:
    """The members to whom any contract of these rulebooks issued a coupon."""
    contracts = (c for r in rulebooks for p in r.partners for c in p.contracts)
    return {coupon.member for c in contracts for coupon in c.coupons} - {NO_ID}


def position(count: int, shares: Shares) -> list[Fraction]:
    """What each of so many clicks is credited with, the first first; together the whole."""
    if count < 2:
        return [Fraction(1)] * count
    ends = shares.first + shares.last
    if count == 2:
        return [shares.first / ends, shares.last / ends] if ends else [Fraction(1, 2)] * 2
    between = shares.middle / (count - 2)
    return [shares.first, *[between] * (count - 2), shares.last]


def chosen(model: str, touches: Sequence[Touch], shares: Shares) -> Touch:
    """The click that a model credits most; touches in the order of time, at least one."""
    if model == FIRST:
        return touches[0]
    if model == POSITION:
        parts = position(len(touches), shares)
        return touches[max(range(len(parts)), key=lambda n: (parts[n], n))]
    return touches[-1]


def by_model(
    touches: Sequence[Touch], member: bytes, coupon: Coupon | None, shares: Shares
) -> dict[str, Any]:
    """What each model would have credited: member, click and channel; of position the shares."""
    told: dict[str, Any] = {}
    if touches:
        for model in (LAST, FIRST, POSITION):
            touch = chosen(model, touches, shares)
            told[model] = [id_text(member), id_text(touch.click_id), touch.channel]
        parts = zip(touches, position(len(touches), shares), strict=True)
        told["shares"] = [[id_text(t.click_id), t.channel, str(part)] for t, part in parts]
    if coupon is not None:
        owner = id_text(coupon.member) if coupon.member != NO_ID else ""
        told[COUPON] = [owner, "", coupon.channel]
    return told


def _touches(evidence: Evidence, rows: int) -> list[list[Touch]]:
    """The clicks of each conversion in the order of time."""
    found: list[list[Touch]] = [[] for _ in range(rows)]
    batch = evidence.touches
    for n, row in enumerate(batch.row.tolist()):
        found[row].append(
            Touch(
                int(batch.clicked_ns[n]),
                batch.click_id[n].tobytes(),
                batch.visit_id[n].tobytes(),
                batch.channel.text(n),
                int(batch.ambiguous[n]),
                int(batch.marked[n]),
            )
        )
    return [sorted(touches) for touches in found]


def _inside(touches: Sequence[Touch], event_ns: int, contract: Contract) -> list[Touch]:
    since_ns = event_ns - contract.attribution_window_ns
    return [t for t in touches if since_ns <= t.clicked_ns <= event_ns]


def _chooses(
    found: Attribution, row: int, inside: Sequence[Touch], candidates: Sequence[Touch]
) -> bool:
    """Did the named click tell whose the sale is, and is there one to credit?"""
    if not found.by_click[row] or found.reason[row] not in CHOOSING:
        return False
    if not candidates and any(touch.marked for touch in inside):
        _lose(found, row)
    return bool(candidates)


def _lose(found: Attribution, row: int) -> None:
    """Leave a sale that would have been ours to the other affiliate."""
    if found.reason[row] in CHOOSING:
        found.reason[row] = TargetReason.STOOD_DOWN
        found.subscriber_id[row] = np.void(NO_ID)


def _coupon(code: str, contract: Contract) -> Coupon | None:
    """The coupon of the contract that a code is; one that names it whole before a prefix."""
    if not code:
        return None
    fitting = [coupon for coupon in contract.coupons if coupon.fits(code)]
    return min(fitting, key=lambda coupon: (coupon.prefix, -len(coupon.code)), default=None)


def _honour(
    found: Attribution,
    row: int,
    contract: Contract,
    coupon: Coupon | None,
    evidence: Evidence,
    event_ns: int,
) -> None:
    """Give a sale to the member to whom its coupon was issued, where that counts."""
    if coupon is None or coupon.member == NO_ID:
        return
    orphan = not found.by_click[row] and found.reason[row] == TargetReason.ORPHAN
    if not (orphan or contract.attribution == COUPON):
        return
    found.by_coupon[row], found.by_click[row], found.by_match[row] = True, False, False
    found.click_id[row] = found.visit_id[row] = np.void(NO_ID)
    consented = _basis(evidence, coupon.member, event_ns) == Basis.CONSENTED
    found.reason[row] = ATTRIBUTED if consented else TargetReason.NOT_A_MEMBER
    found.subscriber_id[row] = np.void(coupon.member if consented else NO_ID)


def _basis(evidence: Evidence, member: bytes, event_ns: int) -> int:
    """The member's basis at a time, by all that is known."""
    facts = evidence.standing.get(member, ())
    place = bisect_right([since_ns for since_ns, _ in facts], event_ns)
    return facts[place - 1][1] if place else Basis.UNKNOWN


def _another(evidence: Evidence, row: int, event_ns: int, contract: Contract) -> bool:
    """Is there any sign of another affiliate's click?"""
    marked_ns = int(evidence.features.marked_ns[row])
    recent = marked_ns > 0 and event_ns - marked_ns <= contract.attribution_window_ns
    return bool(evidence.features.other_click[row]) or recent
