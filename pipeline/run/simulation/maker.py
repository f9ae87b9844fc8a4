"""Makes a story out of a seed.

The maker takes the ledger of coins along, to know what would be interesting: to spend exactly what
is there or one point more, to ask one second before a reservation ends and at the very second, to
let a lot lapse at its last moment, to refund what was spent, to take back what is held. One step in
a few is nonsense or a repetition: other content under a known id, an order that nobody made, a
negative amount, a member without a name.
"""

from __future__ import annotations

import random
from typing import Any, ClassVar

from pipeline.model.stage import END_OF_TIME
from pipeline.model.words import Result
from pipeline.run.simulation import dates
from pipeline.run.simulation.coins import Order
from pipeline.run.simulation.commands import ROLES, WHO_MAY
from pipeline.run.simulation.story import SECOND_NS, Step, Story, Twin, name_id

ZONES = ("UTC", "Europe/Berlin", "Europe/Berlin", "Asia/Shanghai", "America/New_York",
         "Asia/Kolkata", "Pacific/Apia")  # fmt: skip
MEMBERS = ("ann", "bob", "cal", "dan")
PEOPLE = ("pia", "pia", "quinn")
ITEMS = ("mug", "tent")
START = 1_795_000_000  # 18 November 2026
HOUR, DAY = 3600, 86_400
HUGE = 10**14 + 1
EXPIRIES = (
    "calendar_year_plus(2)", "rolling_months(36)", "inactivity(12)", "calendar_year_plus(0)",
    "calendar_year_plus(1)", "calendar_year_plus(2)", "rolling_months(1)", "rolling_months(3)",
    "rolling_months(13)", "inactivity(1)", "inactivity(2)", "inactivity(12)", "never",
    "fixed_date(2027-06-30)",
)  # fmt: skip
REFUNDS = ("grace(30d)", "grace(0d)", "grace(3d)", "original", "fresh")
EXCHANGES = (
    ["miles", "MIL", "3/2", "1/3"], ["miles", "MIL", "1/7", "5"], ["stars", "STA", "2", "0"],
    ["stars", "STA", "0", "2/5"],
)  # fmt: skip
KINDS = {
    "order": 10, "reserve": 12, "commit": 25, "release": 9, "refund": 12, "transfer": 6,
    "convert_out": 3, "convert_in": 3, "adjust": 5, "approve": 3, "reject": 2, "migrate": 2,
    "freeze": 1, "unfreeze": 2, "forfeit": 1, "stock": 3, "close_period": 1, "publish": 1,
    "rerate": 1,
}  # fmt: skip
BY_PEOPLE = ("adjust", "publish", "rerate", "approve", "reject")
NEEDS = {
    "order": "spend", "reserve": "spend", "transfer": "spend", "convert_out": "spend",
    "forfeit": "spend", "commit": "end", "release": "end", "refund": "refund",
    "approve": "decide", "reject": "decide",
}  # fmt: skip


def make_story(seed: int, steps: int = 60) -> Story:
    """The story of a seed: its beginning and so many steps."""
    return Maker(seed).make(steps)


class Maker:
    """One story in the making."""

    kinds: ClassVar[dict[str, int]] = KINDS

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.now, self.cut, self.published = START, 1, 0
        self.members = MEMBERS[: self.draw.randint(2, 4)]
        self.look_at = 0  # when to look at what is due
        self.burst = self.draw.choice((0.2, 0.6, 0.85))  # how likely a batch goes on
        self.conversions: dict[str, Step] = {}
        self.commands: list[Step] = []
        self.story: Story = [
            {"do": "begin", "now": START, "cut": 1, "zone": self.draw.choice(ZONES), "number": 0,
             "rules": self.rules()}
        ]  # fmt: skip
        self.twin = Twin(self.story[0])

    def make(self, steps: int) -> Story:
        """Go on for so many steps. The first ones see to it that members have points."""
        for who in self.members * 2:
            if len(self.story) <= min(steps, steps // 4):
                self.put(self.say(self.welcome(who)))
        while len(self.story) <= steps:
            self.put(self.next_step())
        return self.story

    def put(self, step: Step) -> None:
        """Take a step."""
        step |= {"now": self.now, "cut": self.cut}
        self.twin.apply(step)
        self.story.append(step)

    def welcome(self, who: str) -> Step:
        """Points for a beginning."""
        step = self.new_conversion(f"c{len(self.conversions) + 1}")
        points = self.draw.randint(5, 40)
        money = [points + 3, points, 3]
        return step | {
            "member": who, "state": "available", "points": points, "money": money, "rule": "sale",
        }  # fmt: skip

    def next_step(self) -> Step:
        """What comes next."""
        last = self.story[-1]["do"]
        if last in ("target", "command") and self.draw.random() < self.burst:
            return self.target() if last == "target" else self.command()
        if self.draw.random() < 0.9:
            self.cut += 1
            if self.look_at >= self.now and self.draw.random() < 0.5:
                self.now, self.look_at = self.look_at, 0
                return {"do": "due"}
            self.pass_time()
        kind = self.draw.random()
        if kind < 0.30:
            return self.target()
        if kind < 0.80:
            return self.command()
        if kind < 0.94:
            return {"do": "due"}
        if kind < 0.97:
            self.published += 1
            return {"do": "publish", "number": self.published, "rules": self.rules()}
        return {"do": "reopen"}

    def pass_time(self) -> None:
        """Let the clock go on: mostly a little, sometimes to where something happens."""
        lot = self.draw.random()
        if lot < 0.70:
            self.now += self.draw.choice((0, 1, 59, 300, 900, HOUR, 5 * HOUR))
        elif lot < 0.84:
            self.now += self.draw.choice((1, 1, 2, 5, 30)) * DAY
        elif lot < 0.98:
            coming = [when for when in self.interesting() if when >= self.now - 1]
            if coming:
                when = min(self.draw.sample(coming, min(3, len(coming))))
                if when < self.now + self.draw.choice((DAY, 40 * DAY, 800 * DAY)):
                    self.now = max(self.now, when + self.draw.choice((-1, 0, 0, 1)))
        else:
            self.now += self.draw.randint(100, 400) * DAY

    def interesting(self) -> list[int]:
        """Times at which something ends, in seconds."""
        ledger = self.twin.ledger
        zone = ledger.rules.timezone
        ends = [order.hold_until_ns for order in ledger.orders.values() if order.is_open]
        for purse in ledger.purses.values():
            ends += [lot.runs_out_ns(zone) for lot in purse.lots if lot.coins]
            ends += [lot.runs_out_ns(zone) for lot in purse.lots if lot.at("held")] * 3
        today = dates.local_day(self.now * SECOND_NS, zone)
        leap = today.replace(year=today.year // 4 * 4 + 4, month=2, day=29)
        ends += [
            dates.end_of_day(day, zone)
            for day in (
                today.replace(month=12, day=31), today.replace(month=3, day=28), leap,
                today.replace(month=10, day=31), today.replace(month=2, day=28),
            )
        ]  # fmt: skip
        return [when // SECOND_NS for when in ends if when < END_OF_TIME]

    def rules(self) -> dict[str, Any]:
        """Rules of a programme."""
        draw = self.draw
        return {
            "expiry": draw.choice(EXPIRIES),
            "hold": draw.choice((900, 900, 900, 60, DAY)),
            "waiting": draw.choice((0, 0, 0, HOUR, 30 * DAY)),
            "refund": draw.choice(REFUNDS),
            "manual_limit": draw.choice((0, 10, 10, 20)),
            "exchanges": draw.choice(([], [EXCHANGES[0]], [EXCHANGES[1], EXCHANGES[2]],
                                      [EXCHANGES[0], EXCHANGES[3]])),
            "price": draw.choice(("0.01", "0.01", "0.02", "0.005")),
            "rate": draw.choice((5, 5, 4)),
            "window": draw.choice((0, 14)),
        }  # fmt: skip

    # Targets

    def target(self) -> Step:
        """What a conversion is worth now; or what it was worth before, once more."""
        draw = self.draw
        known = list(self.conversions)
        if not known or draw.random() < 0.35:
            return self.say(self.new_conversion(f"c{len(known) + 1}"))
        before = self.conversions[draw.choice(known[-8:])]
        after = {**before, "fold": self.cut}
        turn = draw.random()
        if turn < 0.08:
            return after if draw.random() < 0.5 else dict(before)  # nothing new
        if turn < 0.14:
            fold = max(1, before["fold"] - draw.randint(0, 2))
            return {**before, "fold": fold, "state": "pending", "points": 3, "money": None,
                    "rule": "sale"}  # fmt: skip
        if turn < 0.18:
            after["at"] += draw.choice((-DAY, DAY, 40 * DAY))
        elif turn < 0.22:
            after["member"] = draw.choice(self.members)
        elif turn < 0.26:
            after["rules"], after["rule"] = self.published, draw.choice(("sale", "lead"))
        if turn > 0.14:
            self.new_worth(after)
        return self.say(after)

    def say(self, step: Step) -> Step:
        """Remember the newest word on a conversion."""
        self.conversions[step["what"]] = step
        return step

    def new_conversion(self, what: str) -> Step:
        """A conversion that nobody heard of, in any state."""
        draw = self.draw
        who = draw.choice(self.members) if draw.random() < 0.97 else ""
        ago = draw.choice(
            (0, HOUR, HOUR, DAY, draw.randint(1, 60) * DAY, draw.randint(1, 500) * DAY)
        )
        step: Step = {
            "do": "target", "what": what, "member": who, "fold": self.cut,
            "at": self.now - ago - draw.randint(0, 50), "rules": self.published,
            "rule": "sale", "partner": "sim-shop" if draw.random() < 0.9 else "other-shop",
            "currency": "EUR" if draw.random() < 0.9 else "USD",
        }  # fmt: skip
        return self.new_worth(step)

    def new_worth(self, step: Step) -> Step:
        """Another state, other points."""
        draw = self.draw
        state = draw.choice(("pending", "pending", "available", "available", "available", "none"))
        points = 0 if state == "none" else draw.choice((draw.randint(0, 9), draw.randint(1, 40)))
        if state == "available" and draw.random() < 0.03:
            points = draw.choice((-1, HUGE))
        step |= {"state": state, "points": points, "money": None}
        if state == "available" and draw.random() < 0.7 and abs(points) < HUGE:
            step["money"] = [points + 3, points, 3]
        if state != "none" and not step["rule"]:
            step["rule"] = "sale"
        elif state == "none" and draw.random() < 0.2:
            step["rule"] = ""
        return step

    # Commands

    def command(self) -> Step:
        """Something that somebody asks."""
        draw = self.draw
        if self.commands and draw.random() < 0.06:
            again = dict(draw.choice(self.commands[-12:]))
            if draw.random() < 0.3:
                again["points"] += 1
            return again
        who = draw.choice(self.members)
        kind = self.some_kind(who)
        if draw.random() < 0.04:
            who = draw.choice(("", "eve"))
        return self.ask(kind, who)

    def ask(self, kind: str, who: str) -> Step:
        """A command of a kind, about a member or nobody."""
        draw = self.draw
        step: Step = {
            "do": "command", "kind": kind, "id": f"{kind[0]}{len(self.commands) + 1}",
            "member": who, "points": 0, "at": self.now - self.lateness(),
            "actor": draw.choice(PEOPLE) if kind in BY_PEOPLE else who,
            "said": {},
        }  # fmt: skip
        step["role"] = draw.choice(WHO_MAY[kind] if draw.random() < 0.97 else ROLES)
        getattr(self, "_ask_" + kind)(step)
        if draw.random() < 0.02 and kind not in ("commit", "refund", "forfeit"):
            step["points"] = draw.choice((HUGE, -HUGE if kind == "adjust" else -1))
        self.commands.append(step)
        return step

    def some_kind(self, who: str) -> str:
        """A kind of command; seldom one that there is nothing to be done by."""
        ledger, draw = self.twin.ledger, self.draw
        orders = list(ledger.orders.values())
        there = {
            "spend": ledger.points(name_id("member", who))[1] > 0,
            "end": any(order.is_open for order in orders),
            "refund": any(order.committed > order.refunded for order in orders),
            "decide": any(
                ledger.answers[each][1] == Result.AWAITING_APPROVAL for each in ledger.requests
            ),
        }
        weights = [
            weight if there.get(NEEDS.get(kind, ""), True) else weight * 0.1
            for kind, weight in self.kinds.items()
        ]
        return draw.choices(list(self.kinds), weights)[0]

    def lateness(self) -> int:
        """How long ago something was asked that is known now; rarely, it is yet to come."""
        draw = self.draw
        lot = draw.random()
        if lot < 0.70:
            return 0
        if lot < 0.90:
            return draw.randint(0, 2 * HOUR)
        return draw.randint(0, 60 * DAY) if lot < 0.98 else -draw.randint(1, 3 * DAY)

    def some_of(self, who: str) -> int:
        """An amount that a member may have."""
        available = self.twin.ledger.points(name_id("member", who))[1]
        return self.draw.choice(
            (available, available // 2, available // 3, available + 1, self.draw.randint(1, 9))
        )

    def _ask_order(self, step: Step) -> None:
        draw, said = self.draw, step["said"]
        step["points"] = self.some_of(step["member"])
        if draw.random() < 0.6:
            said["redemption"] = draw.choice(("gift", "cash", "partner", "holiday"))
        if draw.random() < 0.2:
            said["item"] = draw.choice(ITEMS)
            if draw.random() < 0.4:
                said["quantity"] = draw.choice((0, 1, 2, 3))

    def _ask_reserve(self, step: Step) -> None:
        self._ask_order(step)
        lot = self.draw.random()
        if lot < 0.5:
            step["said"]["hold_seconds"] = self.draw.choice((60, HOUR, DAY, 9 * DAY, 40 * DAY, 0))
        elif lot < 0.75:
            self._hold_past_a_date(step)

    def _hold_past_a_date(self, step: Step) -> None:
        """Reserve for longer than a lot of the member lives, and leave some of it."""
        zone = self.twin.ledger.rules.timezone
        purse = self.twin.ledger.purse(name_id("member", step["member"]))
        ends = [lot.runs_out_ns(zone) // SECOND_NS for lot in purse.lots if lot.at("available")]
        soon = [end for end in ends if 0 < end - step["at"] < 300 * DAY]
        if soon:
            step["said"]["hold_seconds"] = min(soon) - step["at"] + self.draw.choice((0, DAY, DAY))
            self.look_at = min(soon)
            step["points"] = max(step["points"] // 2, 1)

    def an_order(self, step: Step, of_open: bool) -> Order | None:
        """Name an order: mostly one in the state that is asked for."""
        draw, ledger = self.draw, self.twin.ledger
        names = [c["id"] for c in self.commands if c["kind"] in ("order", "reserve")]
        orders = {name: ledger.orders.get(name_id("command", name)) for name in names}
        fit = [
            name for name, order in orders.items()
            if order and (order.is_open if of_open else order.committed > order.refunded)
        ]  # fmt: skip
        if not names:
            step["said"]["order"] = "nobody"
            return None
        name = draw.choice(fit) if fit and draw.random() < 0.85 else draw.choice(names)
        step["said"]["order"] = name
        order = orders[name]
        if order and of_open and order.is_open and draw.random() < 0.15:
            step["at"] = order.hold_until_ns // SECOND_NS - draw.choice((0, 1))
        return order

    def _ask_commit(self, step: Step) -> None:
        order = self.an_order(step, True)
        held = order.points if order else 9
        step["points"] = self.draw.choice((0, 0, held, held // 2, max(held - 1, 0), held + 1, -1))

    def _ask_release(self, step: Step) -> None:
        self.an_order(step, True)

    def _ask_refund(self, step: Step) -> None:
        order = self.an_order(step, False)
        left = order.committed - order.refunded if order else 9
        step["points"] = self.draw.choice((0, 0, left, left // 2, left // 3, left + 1, -1))

    def _ask_transfer(self, step: Step) -> None:
        step["points"] = self.some_of(step["member"])
        step["said"]["to"] = self.draw.choice((*self.members, *self.members, "new", ""))

    def _ask_convert_out(self, step: Step) -> None:
        step["points"] = self.some_of(step["member"])
        step["said"]["programme"] = self.draw.choice(("miles", "miles", "stars", "nothing"))

    def _ask_convert_in(self, step: Step) -> None:
        step["points"] = self.draw.choice((1, 2, 7, 20))
        step["said"]["programme"] = self.draw.choice(("miles", "miles", "stars", "nothing"))

    def _ask_adjust(self, step: Step) -> None:
        draw = self.draw
        there = self.some_of(step["member"])
        step["points"] = draw.choice((5, 10, 11, 25, -5, -there, -there, 0))
        if draw.random() < 0.9:
            step["said"]["reason"] = draw.choice(("goodwill", "a mistake", "it was late"))

    def _ask_approve(self, step: Step) -> None:
        names = [c["id"] for c in self.commands if c["kind"] in ("adjust", "publish", "rerate")]
        waiting = [n for n in names if name_id("command", n) in self.twin.ledger.requests]
        some = waiting if waiting and self.draw.random() < 0.9 else names
        step["said"]["request"] = self.draw.choice(some[-4:]) if some else "nobody"
        step["member"] = ""

    _ask_reject = _ask_approve

    def _ask_migrate(self, step: Step) -> None:
        draw = self.draw
        step["points"] = draw.choice((0, 6, 12))
        if draw.random() < 0.5:
            step["said"]["earned"] = (step["at"] - draw.randint(0, 700) * DAY) * SECOND_NS
        if draw.random() < 0.5:
            step["said"]["expires"] = (step["at"] + draw.randint(-9, 300) * DAY) * SECOND_NS

    def _ask_freeze(self, step: Step) -> None:
        pass

    _ask_unfreeze = _ask_freeze

    def _ask_forfeit(self, step: Step) -> None:
        if self.draw.random() < 0.8:
            step["said"]["reason"] = "left"
        step["points"] = self.draw.choice((0, 0, 5, self.some_of(step["member"]), -1))

    def _ask_stock(self, step: Step) -> None:
        step["member"] = ""
        step["points"] = self.draw.choice((5, 3, 1, 8, -1, -4, 0))
        step["said"]["item"] = self.draw.choice((*ITEMS, *ITEMS, ""))

    def _ask_close_period(self, step: Step) -> None:
        step["member"] = ""
        zone = self.twin.ledger.rules.timezone
        when = (self.now - self.draw.choice((0, 31, 62, -31)) * DAY) * SECOND_NS
        step["said"]["period"] = self.draw.choice((dates.month_of(when, zone), "2026-13", ""))

    def _ask_publish(self, step: Step) -> None:
        step["member"] = ""
        if self.draw.random() < 0.8:
            step["said"]["reason"] = "as agreed"

    _ask_rerate = _ask_publish
