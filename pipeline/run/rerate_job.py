"""`job rerate`: what other rules would make of what was bought before, and asking for it.

The difference is between what the book holds of each conversion now and what the rules in force
make of it as of the last cut that is done. It is shown per member and in sum, and asked for unless
it is only tried (`--dry-run`). See `rerate.py` for what comes then.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.ledger.targets import Target
from pipeline.model.identifiers import digest, id_text
from pipeline.model.money import CURRENCY_SCALE, show_amount
from pipeline.run.failures import WRONG, RequestError
from pipeline.run.rerate import Choice, Worths, worths_at
from pipeline.run.review import check_reason
from pipeline.store.book_rules import RERATE

if TYPE_CHECKING:
    from pipeline.run.state import State

Row = dict[str, Any]
MEMBERS_SHOWN = 20


class Difference(NamedTuple):
    """What a re-rating would change: points by member, and money by partner and currency."""

    conversions: int  # that are rated by other rules now
    changed: int  # of them those worth something else
    members: dict[bytes, int]  # points more or less; none that stay the same
    money: dict[tuple[str, str], tuple[int, int]]  # cost and margin, more or less

    @property
    def points(self) -> int:
        """In sum."""
        return sum(self.members.values())


def rerate(state: State, request: Row, since_ns: int, until_ns: int, now_ns: int) -> bytes:
    """Compare, show, and unless it is a trial put on record that somebody wants it."""
    dry = bool(request.get("dry_run"))
    reason = str(request.get("reason", "")).strip()
    if not dry:
        check_reason(reason)
    if since_ns and until_ns and since_ns >= until_ns:
        raise RequestError("--since has to come before --until", WRONG)
    partner = str(request.get("partner", ""))
    if partner and partner not in {p.id for p in state.rulebook.partners}:
        raise RequestError(f"no partner {partner!r} in the rules that are in force", WRONG)
    if not dry:
        state.take_due_rulebook(now_ns)
    choice = _choice(state, partner, since_ns, until_ns)
    rows = worths_at(state.clickhouse, state.rulebooks, choice)
    found = difference(state, rows)
    told = _told(choice, found)
    if not found.conversions:
        told["said"] = "nothing: all that was chosen was rated by these rules already"
    elif dry:
        told["said"] = "a trial: nothing was asked for"
    else:
        told |= _ask(state, request, choice, rows, found, reason, now_ns)
    if request.get("json"):
        return json.dumps(told, indent=2).encode() + b"\n"
    programme = state.rulebook.programme
    lines = _shown(told, found, programme.points, programme.points_scale)
    return "".join(line + "\n" for line in lines).encode()


def _choice(state: State, partner: str, since_ns: int, until_ns: int) -> Choice:
    """What is chosen, as of the last cut that is done, by the rules in force."""
    last = state.book.last_cut()
    if last is None:
        raise RequestError("no `job accrue` has run yet, so nothing was rated")
    return Choice(last.number, state.rulebook.hash, partner, since_ns, until_ns)


def difference(state: State, rows: Worths) -> Difference:
    """Against what the book holds; what it has never rated is left to the next cut."""
    pinned = state.book.pinned(rows.conversion_key)
    others = {key for key, pin in pinned.items() if pin.rulebook_hash != state.rulebook.hash}
    return compared(rows, {k: t for k, t in state.book.targets(others).items() if k in others})


def compared(rows: Worths, held: Mapping[bytes, Target]) -> Difference:
    """Rows against the targets that the book took last; rows without one are left out."""
    members: dict[bytes, int] = defaultdict(int)
    money: dict[tuple[str, str], tuple[int, int]] = defaultdict(lambda: (0, 0))
    counted = changed = 0
    for row, key in enumerate(map(bytes, rows.conversion_key)):
        old = held.get(key)
        if old is None:
            continue
        counted += 1
        before = (old.subscriber_id, old.points, old.cost_minor, old.margin_minor)
        after = (
            bytes(rows.subscriber_id[row]), int(rows.points[row]), int(rows.cost_minor[row]),
            int(rows.margin_minor[row]),
        )  # fmt: skip
        if before[1:] == after[1:] and (before[0] == after[0] or not after[1]):
            continue
        changed += 1
        for sign, side, currency in ((-1, before, old.currency), (1, after, rows.currency[row])):
            members[side[0]] += sign * side[1]
            cost, margin = money[rows.partner[row], currency]
            money[rows.partner[row], currency] = (cost + sign * side[2], margin + sign * side[3])
    return Difference(
        counted,
        changed,
        {who: points for who, points in members.items() if points},
        {where: sums for where, sums in money.items() if any(sums)},
    )


def _ask(
    state: State, request: Row, choice: Choice, rows: Worths, found: Difference, reason: str,
    now_ns: int,
) -> Row:  # fmt: skip
    """Put it on record, durably."""
    fingerprint = rows.digest(choice)
    ref = f"{fingerprint} {now_ns}"
    body = choice.body() | {
        "digest": fingerprint,
        "conversions": found.conversions,
        "changed": found.changed,
        "members": len(found.members),
        "reason": reason,
    }
    role, scope = (str(request.get(name, "")) for name in ("role", "scope"))
    state.command(
        RERATE, ref, body, request["actor"], now_ns, points=found.points, role=role, scope=scope
    )
    state.deliver()
    identifier = id_text(digest(state.keys.visit, "command", RERATE, ref))
    return {"request": identifier, "digest": fingerprint, "reason": reason}


def _told(choice: Choice, found: Difference) -> Row:
    members = sorted(found.members.items(), key=lambda pair: (-abs(pair[1]), pair[0]))
    gains = np.array([points for _, points in members], np.int64)
    return {
        **choice.body(),
        "conversions": found.conversions,
        "changed": found.changed,
        "points": found.points,
        "more": int(gains[gains > 0].sum()),
        "less": int(gains[gains < 0].sum()),
        "members": [[id_text(who), points] for who, points in members],
        "money": [[*where, *sums] for where, sums in sorted(found.money.items())],
    }


def _shown(told: Row, found: Difference, unit: str, scale: int) -> list[str]:
    """For a terminal of 80 columns."""

    def points(count: int) -> str:
        return f"{'+' if count > 0 else ''}{show_amount(count, scale)} {unit}"

    lines = [
        f"as of cut {told['cut']}, by rules {told['rulebook'][:8]}:",
        f"  {found.conversions:,} conversions were rated by other rules, "
        f"{found.changed:,} would be worth something else",
        f"  {points(found.points)} in sum: {points(told['more'])}, {points(told['less'])},"
        f" for {len(found.members):,} members",
    ]
    for partner, currency, cost, margin in told["money"]:
        fine = CURRENCY_SCALE.get(currency, 2)
        lines.append(
            f"  {partner}: cost of points {show_amount(cost, fine)} {currency}, "
            f"margin {show_amount(margin, fine)} {currency}"
        )
    for who, count in told["members"][:MEMBERS_SHOWN]:
        lines.append(f"    {who}  {points(count)}")
    if len(told["members"]) > MEMBERS_SHOWN:
        lines.append(f"    ... and {len(told['members']) - MEMBERS_SHOWN:,} more (--json has all)")
    if "request" in told:
        lines += [
            f"asked for: request {told['request']}",
            "another person approves it after the next cut: "
            f"`mirrorpoint book approve --request {told['request']}`",
        ]
    return [*lines, told["said"]] if "said" in told else lines
