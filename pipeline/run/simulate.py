"""`mirrorpoint simulate`: stories out of seeds, told to a book and to a ledger of coins.

A seed makes a story (`pipeline/run/simulation`): purchases, commands, rules, cuts, crashes. Nearly
all stories are told to a book alone, step by step, which takes a third of a second; one seed in
`WHOLE_EVERY` is told to a whole state, with journal, store and crashes at named points, which takes
some seconds. After every step, or every cut, all that the book holds and says is compared with the
coins. Which way a seed goes, and everything else about it, follows from its number, so a failure is
repeated by it.

The first story that fails ends the run: it is made as small as it can be, shown as a table, and the
exit code is 1. Nothing is kept; books stand in memory, states in a folder that is removed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click

from pipeline.run.simulation.drive import MEMORY, Shelf
from pipeline.run.simulation.maker import make_story
from pipeline.run.simulation.shrink import explained
from pipeline.run.simulation.story import Failure, Story

WHOLE_EVERY = 25
STEPS = 50
WHOLE_TRIES = 60  # of making a story of the whole path smaller: each takes seconds


class Stage:
    """Where stories are told: books and states, thrown away one after the other."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._shelf = Shelf()
        self._stack.callback(self._shelf.close)
        self._states = 0
        self._store: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def story_of(self, seed: int, steps: int) -> Story:
        """The story of a seed."""
        if seed % WHOLE_EVERY:
            return make_story(seed, steps)
        from pipeline.run.simulation.path_maker import make_path_story

        return make_path_story(seed, steps)

    def run(self, story: Story) -> Failure | None:
        """Tell a story to a book, or to a whole state if it is one of a whole path."""
        if "members" in story[0]:
            return self._run_whole(story)
        return self._shelf.run(story)

    def explained(self, story: Story) -> str:
        """What goes wrong in a story that fails, in few words."""
        if "members" in story[0]:
            return explained(story, self.run, WHOLE_TRIES)
        return explained(story, self.run)

    def _run_whole(self, story: Story) -> Failure | None:
        from pipeline.run.simulation.path import run_path, stay_open

        if self._store is None:
            self._store = stay_open()
            self._stack.callback(self._store.close)
        self._states += 1
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            return run_path(story, Path(folder), f"simulation_{self._states}")


def simulate(first: int, seeds: int, steps: int, as_json: bool) -> int:
    """Tell the stories of these seeds; the exit code."""
    told: dict[str, Any] = {"first": first, "seeds": 0, "steps": 0, "whole": 0}
    started = time.monotonic()
    with Stage() as stage:
        for seed in range(first, first + seeds):
            _progress(seed - first, seeds)
            story = stage.story_of(seed, steps)
            failure = stage.run(story)
            told["seeds"] += 1
            told["steps"] += len(story) - 1
            told["whole"] += "members" in story[0]
            if failure is None:
                continue
            again = f"mirrorpoint simulate --seed {seed} --steps {steps}"
            why = stage.explained(story)
            _progress(seeds, seeds)
            if as_json:
                told |= {"failed": seed, "found": failure.found, "smallest": why, "again": again}
                click.echo(json.dumps(told, indent=2))
            else:
                click.echo(f"seed {seed}, step {failure.step}: {failure.found}\n")
                click.echo(f"The smallest story found that fails in this way:\n\n{why}\n")
                click.echo(f"Again: {again}")
            return 1
    _progress(seeds, seeds)
    seconds = time.monotonic() - started
    if as_json:
        click.echo(json.dumps({**told, "seconds": round(seconds, 1)}, indent=2))
    else:
        click.echo(
            f"{seeds:,} seeds from {first}, {told['steps']:,} steps, {told['whole']:,} seeds"
            f" through the whole path: no difference ({seconds:.0f} s)"
        )
    return 0


def _progress(done: int, seeds: int) -> None:
    """How far it is, on a terminal and nowhere else."""
    if sys.stderr.isatty():
        line = f"\r{done:,} of {seeds:,} seeds" if done < seeds else "\r\033[K"
        click.echo(line, nl=False, err=True)
