"""Makes a story of the whole path out of a seed: messages in place of targets, cuts, crashes.

Messages about a conversion are made in the order in which things happened, and sent in another: a
few wait and come later, some come twice, some ids come again with other content (which intake parks
as duplicates). What commands are about is drawn from how the ledger of coins stood at the last cut.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pipeline.model.identifiers import id_text
from pipeline.model.words import OWN_COMMANDS
from pipeline.run.simulation.maker import DAY, HOUR, KINDS, PEOPLE, Maker
from pipeline.run.simulation.path import PathTwin
from pipeline.run.simulation.story import SECOND_NS, Step, Story, rulebook
from pipeline.store.crash import CRASH_POINTS

# Passed within a cut, where a state is at work; the others are those of a capture.
POINTS = tuple(point for point in CRASH_POINTS if not point.startswith("ingest."))
CUTS = 5  # each takes the better part of a second
STATUSES = ("pending", "approved", "approved", "adjusted", "declined")


def make_path_story(seed: int, steps: int = 60) -> Story:
    """The story of a seed; its last step is a cut."""
    return PathMaker(seed).make(steps)


class PathMaker(Maker):
    """One story of the whole path in the making."""

    kinds: ClassVar[dict[str, int]] = {**KINDS, "publish": 4, "rerate": 6, "approve": 12}

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        begin = self.story[0]
        begin["members"] = list(self.members)
        self.twin: PathTwin = PathTwin(begin, rulebook(begin["zone"], begin["rules"]).programme.id)
        self.waiting: list[Step] = []
        self.sent: list[Step] = []
        self.number = 0

    def make(self, steps: int) -> Story:
        """Go on for so many steps."""
        for who in self.members * 2:
            self.put(self.message(who, "approved"))
        self.put({"do": "cut"})
        if self.draw.random() < 0.6:
            for kind in ("publish", "approve"):
                self.put(self.ask(kind, self.draw.choice(self.members)))
        while len(self.story) < steps:
            self.pass_time()
            self.put(self.next_step())
        for step in self.waiting:
            self.put(step)
        self.put({"do": "cut"})
        return self.story

    def put(self, step: Step) -> None:
        """Take a step."""
        step |= {"now": self.now, "cut": 0}
        self.story.append(step)
        if step["do"] in ("buy", "command"):
            self.twin.hear(step)
        elif step["do"] == "cut":
            self.number += 1
            self.twin.cut(self.now, self.number)

    def next_step(self) -> Step:
        """What comes next."""
        draw = self.draw
        lot = draw.random()
        if lot < 0.30:
            return self.some_message()
        if lot < 0.76:
            return self.command()
        if lot < 0.87:
            point = draw.choice(POINTS)
            return {"do": "crash", "point": point, "nth": draw.choice((1, 1, 2, 3))}
        if self.number < CUTS - 1:
            return {"do": "cut", "again": draw.random() < 0.2}
        return self.command()

    def _ask_publish(self, step: Step) -> None:
        """Other rules; now and then what is in force already, or rules to come later."""
        super()._ask_publish(step)
        draw = self.draw
        self.published += 1
        rules = self.rules() if draw.random() < 0.9 else self.twin.said[self.twin.number]
        step |= {"number": self.published, "rules": rules}
        found = rulebook(self.story[0]["zone"], rules)
        step["said"]["rulebook"] = id_text(found.hash)
        if draw.random() < 0.4:
            step["said"]["from"] = (self.now + draw.randint(-9, 60) * DAY) * SECOND_NS

    def _ask_approve(self, step: Step) -> None:
        """Mostly what rules for all were asked for last, and by another person."""
        super()._ask_approve(step)
        for_all = [c for c in self.commands[-12:] if c["kind"] in OWN_COMMANDS]
        if for_all and self.draw.random() < 0.8:
            asked = self.draw.choice(for_all)
            step["said"]["request"] = asked["id"]
            step["actor"] = self.draw.choice([who for who in PEOPLE if who != asked["actor"]])

    def _ask_rerate(self, step: Step) -> None:
        """What was bought before by the rules in force: all of it, or since a time."""
        super()._ask_rerate(step)
        step["since"] = self.now - self.draw.choice((9 * 365, 9 * 365, 60, 200)) * DAY

    def some_message(self) -> Step:
        """A message of now, of before, or one that came already."""
        draw = self.draw
        lot = draw.random()
        if self.sent and lot < 0.12:
            again = dict(draw.choice(self.sent[-8:]))
            if draw.random() < 0.4:
                again["amount"] = 12345
            return again
        if self.waiting and lot < 0.35:
            return self.waiting.pop(draw.randrange(len(self.waiting)))
        made = self.message(draw.choice(self.members), draw.choice(STATUSES))
        if draw.random() < 0.25 and len(self.story) > 8:
            self.waiting.append(made)
            made = self.message(made["member"], draw.choice(STATUSES))
        return made

    def message(self, who: str, status: str) -> Step:
        """The next message about a conversion, new or known."""
        draw = self.draw
        known = list(self.conversions)
        is_new = not known or len(self.story) < 8 or draw.random() < 0.35
        what = f"c{len(known) + 1}" if is_new else draw.choice(known[-6:])
        number = len(self.sent) + 1
        before = self.conversions.get(what)
        ago = draw.choice((HOUR, DAY, draw.randint(1, 60) * DAY, draw.randint(1, 400) * DAY))
        # Every conversion has its own second, so that none is rated before another by chance.
        at = before["at"] if before else self.now - ago - len(known)
        whose = before["member"] if before and draw.random() < 0.95 else who
        amount: Any = draw.choice((0, 1999, draw.randint(100, 90_000)))
        mode = "absolute"
        if status == "declined" or (before and draw.random() < 0.2):
            amount = None
        elif before and draw.random() < 0.3:
            amount, mode = draw.choice((-2000, 500)), "delta"
        step: Step = {
            "do": "buy", "what": what, "member": whose, "status": status, "amount": amount,
            "mode": mode, "at": at, "told": at + number * 60, "id": f"m{number}",
        }  # fmt: skip
        self.conversions[what] = step
        self.sent.append(step)
        return step
