"""A failing story becomes small, stays a failing one, and can be read."""

from __future__ import annotations

from pipeline.run.simulation.maker import make_story
from pipeline.run.simulation.shrink import as_table, explained, shrink
from pipeline.run.simulation.story import Failure, Story


def refunds_after_freeze(story: Story) -> bool:
    kinds = [step.get("kind") for step in story]
    return "freeze" in kinds and "refund" in kinds[kinds.index("freeze") :]


def a_long_one() -> Story:
    return next(s for s in (make_story(n, 150) for n in range(99)) if refunds_after_freeze(s))


def test_what_does_not_matter_is_left_out() -> None:
    small = shrink(a_long_one(), refunds_after_freeze)
    assert [step.get("kind", step["do"]) for step in small] == ["begin", "freeze", "refund"]
    assert small[0]["zone"] == "UTC"
    assert small[0]["rules"]["exchanges"] == []


def test_numbers_become_small() -> None:
    def fails(story: Story) -> bool:
        return any(step.get("points", 0) >= 7 for step in story)

    small = shrink(next(s for s in map(make_story, range(99)) if fails(s)), fails)
    assert len(small) == 2
    assert small[1]["points"] == 7
    assert small[1]["at"] == small[1]["now"]


def test_it_stops_in_time() -> None:
    tries = []
    shrink(a_long_one(), lambda story: bool(tries.append(1)), tries=30)
    assert len(tries) == 30


def test_a_failure_is_explained_by_the_smallest_story() -> None:
    def run(story: Story) -> Failure | None:
        if refunds_after_freeze(story):
            return Failure(len(story) - 1, "Difference: made up")
        return None

    lines = explained(a_long_one(), run).splitlines()
    assert lines[0] == "Difference: made up"
    assert [line.split("|")[2].strip() for line in lines[2:]] == ["do", "begin", "freeze", "refund"]


def test_a_table_says_all_of_a_story() -> None:
    story = make_story(1, 60)
    table = as_table(story)
    assert len(table.splitlines()) == len(story) + 1
    for step in story:
        for word in (str(step.get("id", "")), step.get("what", ""), step.get("state", "")):
            assert word in table
