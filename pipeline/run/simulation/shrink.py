"""Makes a failing story small: fewer steps first, then smaller numbers, then a table.

Delta debugging: chunks of steps are left out, half of the story at first, then less and less; what
still fails is kept. Then every number is made smaller as long as the story fails. The first step,
which begins the story, stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from pipeline.run.simulation.story import Failure, Step, Story

Fails = Callable[[Story], bool]
Run = Callable[[Story], Failure | None]
TRIES = 400
RULES = {
    "expiry": "never", "hold": 900, "waiting": 0, "refund": "original", "manual_limit": 1000,
    "exchanges": [], "price": "0.01",
}  # fmt: skip


def shrink(story: Story, fails: Fails, tries: int = TRIES) -> Story:
    """The smallest story found that still fails, after so many tries at most."""
    left = [tries]

    def still(candidate: Story) -> bool:
        left[0] -= 1
        return left[0] >= 0 and fails(candidate)

    before = None
    while before != story and left[0] > 0:
        before = story
        story = _fewer_steps(story, still)
        story = _simpler_steps(story, still)
    return story


def explained(story: Story, run: Run, tries: int = TRIES) -> str:
    """What goes wrong in a story that fails: the smallest one that fails in the same way."""
    failure = run(story)
    assert failure is not None, "a story that does not fail when it is told again"

    def fails(candidate: Story) -> bool:
        found = run(candidate)
        return found is not None and found.way == failure.way

    upto = [step for step in story if step["cut"] <= story[failure.step]["cut"]]
    smallest = shrink(upto if fails(upto) else story, fails, tries)
    found = run(smallest)
    assert found is not None
    return f"{found.found}\n\n{as_table(smallest)}"


def _fewer_steps(story: Story, still: Fails) -> Story:
    """Leave out chunks, from the end; the beginning stays."""
    size = max(len(story) // 2, 1)
    while True:
        end = len(story)
        while end > 1:
            start = max(end - size, 1)
            candidate = story[:start] + story[end:]
            if still(candidate):
                story = candidate
            end = start
        if size == 1:
            return story
        size //= 2


def _simpler_steps(story: Story, still: Fails) -> Story:
    """Say each step in simpler words, as long as some are found that still fail."""
    for number in range(len(story)):
        found = True
        while found:
            found = False
            for changed in _simpler(story[number]):
                candidate = [*story[:number], changed, *story[number + 1 :]]
                if still(candidate):
                    story, found = candidate, True
                    break
    return story


def _simpler(step: Step) -> Iterator[Step]:
    """The same step in simpler words, one change at a time."""
    if "rules" in step and isinstance(step["rules"], dict):
        for name, plain in RULES.items():
            if step["rules"].get(name) != plain:
                yield {**step, "rules": {**step["rules"], name: plain}}
    if step["do"] == "begin" and step["zone"] != "UTC":
        yield {**step, "zone": "UTC"}
    points = step.get("points", 0)
    for fewer in (1, points // 2, points - 1):
        if 0 < fewer < points:
            yield _worth(step, fewer)
    if step.get("money"):
        yield {**step, "money": None}
    if "at" in step and step["at"] != step["now"]:
        yield {**step, "at": step["now"]}
        if step["at"] % 86_400:
            yield {**step, "at": step["at"] // 86_400 * 86_400}
    for name in step.get("said", {}):
        yield {**step, "said": {k: v for k, v in step["said"].items() if k != name}}


def _worth(step: Step, points: int) -> Step:
    changed = {**step, "points": points}
    if step.get("money"):
        changed["money"] = [points + 3, points, 3]
    return changed


# As a table


def as_table(story: Story) -> str:
    """A story to be read, one step a line."""
    rows = [("now", "cut", "do", "what", "member", "points", "at", "more")]
    for step in story:
        rows.append(
            (
                _moment(step["now"]), str(step["cut"]), str(step.get("kind", step["do"])),
                str(step.get("id") or step.get("what", "")), str(step.get("member", "")),
                str(step.get("points", "")),
                _moment(step["at"]) if step.get("at", step["now"]) != step["now"] else "",
                _more(step),
            )
        )  # fmt: skip
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]) - 1)]
    return "\n".join(
        " | ".join((*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1])).rstrip()
        for row in rows
    )


def _more(step: Step) -> str:
    words: dict[str, Any] = dict(step.get("said", {}))
    if step["do"] in ("begin", "publish"):
        words = {"number": step["number"], **step["rules"]}
        if step["do"] == "begin":
            words["zone"] = step["zone"]
    if step["do"] == "target":
        words = {name: step[name] for name in ("state", "fold", "rules", "rule", "partner")}
        if step["money"]:
            words["money"] = "/".join(map(str, step["money"])) + step["currency"]
    if step.get("actor"):
        words["by"] = step["actor"]
    if step.get("role"):
        words["as"] = step["role"]
    return " ".join(
        f"{name}={value if isinstance(value, (str, int)) else json.dumps(value)}"
        for name, value in words.items()
    )


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19].replace("T", " ")
