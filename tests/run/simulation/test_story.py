"""Steps as the ledgers want them: names are ids, seconds are times, rules are a rulebook."""

from __future__ import annotations

import pytest

from pipeline.model.identifiers import NO_ID, id_text
from pipeline.run.simulation.maker import EXPIRIES, Maker, make_story
from pipeline.run.simulation.story import (
    Twin,
    asked_of,
    batches,
    naive_rules,
    name_id,
    rulebook,
    target_of,
)


def test_names_are_ids() -> None:
    assert name_id("member", "") == NO_ID
    assert name_id("member", "ann") != name_id("command", "ann")
    step = {
        "id": "f1", "kind": "refund", "member": "ann", "points": 3, "at": 7, "actor": "ann",
        "said": {"order": "o1", "reason": "why"},
    }  # fmt: skip
    asked = asked_of(step)
    assert asked.names("order") == name_id("command", "o1")
    assert asked.said == {"order": id_text(name_id("command", "o1")), "reason": "why"}
    assert (asked.at_ns, asked.names("to")) == (7 * 10**9, NO_ID)


@pytest.mark.parametrize("expiry", EXPIRIES)
def test_both_ledgers_have_the_same_rules(expiry: str) -> None:
    said = {**Maker(1).rules(), "expiry": expiry, "exchanges": [["miles", "MIL", "3/2", "0"]]}
    programme = rulebook("Asia/Kolkata", said).programme
    rules = naive_rules("Asia/Kolkata", said)
    assert (rules.expiry, rules.timezone) == (programme.expiry, programme.timezone)
    assert (rules.hold_ns, rules.waiting_ns) == (programme.hold_ns, programme.waiting_ns)
    assert (rules.refund, rules.manual_limit) == (programme.refund, programme.manual_limit)
    (exchange,) = programme.exchanges
    assert rules.exchanges[exchange.id] == (exchange.unit, exchange.rate_out, exchange.rate_in)


def test_a_target_is_rated_by_its_rulebook() -> None:
    story = make_story(2, 5)
    twin = Twin(story[0])
    made = target_of(story[1], twin.rulebook)
    assert made.rulebook_hash == twin.rulebook.hash
    assert made.rule_version == twin.rulebook.partners[0].accruals[0].version
    assert made.receivable_minor == made.cost_minor + made.margin_minor


def test_steps_of_one_cut_are_one_batch() -> None:
    kinds = ("target", "target", "command", "due", "due", "target")
    story = [{"do": do, "cut": cut} for do, cut in zip(kinds, (1, 1, 1, 1, 1, 2), strict=True)]
    sizes = [len(steps) for steps in batches(story)]
    assert sizes == [2, 1, 1, 1, 1]
