"""A story: a list of plain steps that a book and the ledger of coins are taken through.

Steps are dicts that JSON can hold, so that a failing story can be stored, shrunk and read. Names
stand for ids, seconds since 1970 for times; nothing in a step follows from another step, so that
any of them may be left out. The first step begins the story, the others are

    target   what a conversion is worth: what, member, state, points, money, at, fold, rules, rule
    command  something asked: kind, id, member, points, at, actor, said
    due      let end what is due
    publish  other rules: number, rules
    reopen   close the book and open it again

Each has `now`, the clock, which never goes back, and `cut`. Steps of one kind and cut that follow
each other are sent as one batch.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

from pipeline.ledger.targets import Target
from pipeline.model.identifiers import NO_ID, id_text
from pipeline.model.words import Result, TargetReason, TargetState
from pipeline.rulebook.model import Rulebook
from pipeline.rulebook.read import from_texts
from pipeline.run.simulation.commands import Asked
from pipeline.run.simulation.model import Exchange, LotIds, NaiveLedger, NaiveRules, any_lot_id

Step = dict[str, Any]
Story = list[Step]
SECOND_NS = 10**9
PARTNER = "sim-shop"
POINTS = "PTS"
NAMED = {"order": "command", "request": "command", "to": "member"}  # ids in a command's body


@dataclass(frozen=True, slots=True)
class Failure:
    """Where a story went wrong: the number of the step, and what was found."""

    step: int
    found: str

    @property
    def way(self) -> str:
        """In what way, without the words of this story: the name of an exception."""
        return self.found.partition(":")[0]


def name_id(kind: str, name: str) -> bytes:
    """The id that a story means by a name; no name is none."""
    if not name:
        return NO_ID
    return hashlib.blake2b(name.encode(), digest_size=16, person=kind.encode()).digest()


def batches(story: Story) -> Iterator[Story]:
    """The story in the pieces in which it is sent."""
    for _, group in itertools.groupby(story, key=lambda step: (step["do"], step["cut"])):
        steps = list(group)
        if steps[0]["do"] in ("target", "command"):
            yield steps
        else:
            yield from ([step] for step in steps)


# Rules


def naive_rules(zone: str, said: dict[str, Any]) -> NaiveRules:
    """Rules as the ledger of coins knows them."""
    return NaiveRules(
        said["expiry"],
        zone,
        said["hold"] * SECOND_NS,
        said["waiting"] * SECOND_NS,
        said["refund"],
        said["manual_limit"],
        {
            name: Exchange(unit, Fraction(rate_out), Fraction(rate_in))
            for name, unit, rate_out, rate_in in said["exchanges"]
        },
    )


def rulebook(zone: str, said: dict[str, Any]) -> Rulebook:
    """The same rules as a rulebook, with one partner."""
    return _rulebook(zone, json.dumps(said, sort_keys=True))


@lru_cache(maxsize=1024)
def _rulebook(zone: str, text: str) -> Rulebook:
    said = json.loads(text)
    exchanges = "".join(
        f'[[exchange]]\nexchange = "{name}"\nunit = "{unit}"\n'
        + (f'rate_out = "{rate_out}"\n' if rate_out != "0" else "")
        + (f'rate_in = "{rate_in}"\n' if rate_in != "0" else "")
        for name, unit, rate_out, rate_in in said["exchanges"]
    )
    words = {**said, "exchanges": exchanges}
    words |= {name: _span(said[name]) for name in ("hold", "waiting")}
    programme = PROGRAMME.format(zone=zone, points=POINTS, **words)
    return from_texts(
        {
            "programme.toml": programme,
            "policies/default.toml": POLICY,
            f"partners/{PARTNER}.toml": SHOP.format(partner=PARTNER, **said),
        }
    )


def _span(seconds: int) -> str:
    """A duration as a rule says it."""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


PROGRAMME = """
programme = "simulated"
title = "Simulated"
timezone = "{zone}"
points = "{points}"
points_scale = 0
currency = "EUR"
region = "home"
funder = "operator"
issue_price = "{price}"
settlement_price = "0.01"
expiry = "{expiry}"
hold = "{hold}"
waiting_period = "{waiting}"
refund = "{refund}"
manual_limit = {manual_limit}
{exchanges}"""

POLICY = """
policy = "default"
visit_gap = "30m"
lateness = "5m"
guard = "30s"
tracker_window = "30m"
[experiment]
name = "none"
holdout = "0%"
seed = "none"
"""

SHOP = """
partner = "{partner}"
title = "Shop"
status = "live"
[match]
hosts = ["shop.example"]
[[contract]]
version = "shop-2020"
valid_from = 2020-01-01
click_delivery = "match"
referral = true
attribution_window = "30d"
return_window = "{window}d"
currency = "EUR"
commission = "10%"
terms = "shop-terms"
[[accrual]]
id = "sale"
kind = "percent"
action = "sale"
rate = "{rate}%"
per_point = "1"
valid_from = 2020-01-01
[[accrual]]
id = "lead"
kind = "fixed"
action = "lead"
points = 5
valid_from = 2020-01-01
[[example]]
host = "shop.example"
is = "matched"
[[example]]
host = "another.example"
is = "ignored"
[[example]]
action = "sale"
amount = "0.00"
points = 0
"""


# Steps as the ledgers want them


def asked_of(step: Step) -> Asked:
    """A command, as the ledger of coins takes it."""
    said = {
        name: id_text(name_id(NAMED[name], value)) if name in NAMED else value
        for name, value in step["said"].items()
    }
    return Asked(
        name_id("command", step["id"]),
        step["kind"],
        name_id("member", step["member"]),
        step["points"],
        step["at"] * SECOND_NS,
        step["actor"],
        step.get("role", "admin"),
        said,
    )


def target_of(step: Step, rules: Rulebook) -> Target:
    """A target, as that rulebook would rate it."""
    rule = step["rule"]  # the accrual's id; none for a conversion that no rule is about
    version = next((a.version for a in rules.partners[0].accruals if a.id == rule), NO_ID)
    receivable, cost, margin = step["money"] or (0, 0, 0)
    what = step["what"]
    return Target(
        name_id("conversion", what),
        step["fold"],
        1,
        step["fold"],
        name_id("member", step["member"]),
        step["partner"],
        what,
        int(TargetState[step["state"].upper()]),
        int(TargetReason.AWARDED),
        step["points"],
        receivable,
        cost,
        margin,
        step["currency"] if step["money"] else "",
        name_id("click", what),
        name_id("visit", what),
        step["at"] * SECOND_NS,
        0,
        f"{PARTNER}/{rule}" if rule else "",
        version,
        "shop-2020",
        rules.hash if rule else NO_ID,
        name_id("terms", rule and str(rules.programme.issue_price)),
        "",
    )


class Twin:
    """The ledger of coins, taken through a story."""

    def __init__(self, begin: Step, lot_id: LotIds = any_lot_id) -> None:
        assert begin["do"] == "begin"
        self.zone = begin["zone"]
        self.rulebooks: dict[int, Rulebook] = {}
        self.said: dict[int, dict[str, Any]] = {}
        self.ledger = NaiveLedger(None, lot_id)
        self.publish(begin)

    def publish(self, step: Step) -> None:
        """Use other rules."""
        rules = naive_rules(self.zone, step["rules"])
        self.rulebook = rulebook(self.zone, step["rules"])
        self.rulebooks[step["number"]] = self.rulebook
        self.said[step["number"]] = step["rules"]
        self.ledger.use(rules, self.rulebook.hash)

    def target(self, step: Step) -> Target:
        """The target that a step means."""
        return target_of(step, self.rulebooks.get(step["rules"], self.rulebook))

    def apply(self, step: Step) -> Result | tuple[int, int] | None:
        """Take one step; what is answered."""
        ledger, now_ns = self.ledger, step["now"] * SECOND_NS
        if step["do"] == "target":
            return ledger.target(self.target(step))
        if step["do"] == "command":
            return ledger.command(asked_of(step), now_ns)
        if step["do"] == "due":
            return ledger.due(now_ns)
        if step["do"] == "publish":
            self.publish(step)
        return None


def tell(story: Story, changed: Callable[[Twin, Step], None] | None = None) -> Twin:
    """Take the ledger of coins through a story; `changed` looks at it after each step."""
    twin = Twin(story[0])
    for step in story[1:]:
        twin.apply(step)
        if changed:
            changed(twin, step)
    return twin
