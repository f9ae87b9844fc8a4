"""Stories: the same seed tells the same one, and some hundred of them leave nothing out."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

from pipeline.model.words import BOOK_COMMANDS, OWN_COMMANDS, Result
from pipeline.run.simulation.maker import make_story
from pipeline.run.simulation.story import Twin, batches

SEEDS = 150


def test_a_seed_is_a_story() -> None:
    assert make_story(3, 50) == make_story(3, 50) != make_story(4, 50)
    story = make_story(3, 50)
    assert len(story) == 51
    assert json.loads(json.dumps(story)) == story


def test_time_and_cuts_never_go_back() -> None:
    for seed in range(20):
        story = make_story(seed, 60)
        assert [step["now"] for step in story] == sorted(step["now"] for step in story)
        assert [step["cut"] for step in story] == sorted(step["cut"] for step in story)
        assert [step for batch in batches(story) for step in batch] == story


def test_stories_leave_nothing_out() -> None:
    """Every kind is accepted, every answer is given, whatever time brings is brought."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    brought: Counter[str] = Counter()
    for seed in range(SEEDS):
        story = make_story(seed, 60)
        twin = Twin(story[0])
        for step in story[1:]:
            answer = twin.apply(step)
            if isinstance(answer, Result):
                answers[step.get("kind", "target")][answer.name] += 1
            elif answer is not None:
                brought.update(released=answer[0], lapsed=answer[1])
        purses = twin.ledger.purses.values()
        brought["debt"] += sum(purse.debt > 0 for purse in purses)
        brought["idle"] += sum(c.idle for purse in purses for lot in purse.lots for c in lot.coins)
    assert set(answers) == {*BOOK_COMMANDS, "target"}
    first = {kind: "AWAITING_APPROVAL" if kind in OWN_COMMANDS else "OK" for kind in answers}
    assert not [kind for kind in answers if answers[kind][first[kind]] < 5], answers
    given = sum(answers.values(), Counter())
    never = {"PERIOD_CLOSED"}  # the book knows no occasion for it
    assert {result.name for result in Result} - set(given) == never
    assert min(brought[what] for what in ("released", "lapsed", "debt", "idle")) > 10, brought
