"""What a judge prints: points, each with what was asked and what was reached.

A check is a program with named parts; each part yields points. What a part cannot do is a point
that falls short, so nothing is left out silently.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

from tests.bench import wire
from tests.bench.figures import Figure, machine


@dataclass(frozen=True, slots=True)
class Point:
    """One thing asked, what was reached, and whether that is enough."""

    what: str
    asked: str
    reached: str
    good: bool


class FellShort(Exception):
    """A command that did not do what it should; the message says which and how."""


def fast(
    what: str, figure: Figure, asked: int, rate: float | None = None, beside: str = ""
) -> Point:
    """A rate by the clock; a busy machine is told, for it makes the clock unfair."""
    rate = figure.rate if rate is None else rate
    busy = ", the machine was busy" if figure.disturbed else ""
    reached = f"{rate / 1e6:.2f} M/s{beside}{busy}"
    return Point(what, f">= {asked / 1e6:g} M/s", reached, rate >= asked)


def points_of(name: str, work: Callable[[], Iterator[Point]]) -> Iterator[Point]:
    """The points of one part; what it cannot do is a point that falls short."""
    try:
        yield from work()
    except FellShort as why:
        yield Point(name, "done", str(why), False)
    except subprocess.CalledProcessError as why:
        yield Point(name, "done", f"{why.cmd[0]} ended with {why.returncode}", False)
    except (OSError, ValueError, KeyError, AssertionError, ImportError) as why:
        yield Point(name, "done", f"{type(why).__name__}: {why}", False)


def show(point: Point) -> str:
    """One line, the verdict in front; a long one goes on below, under the words."""
    verdict = "ok   " if point.good else "SHORT"
    text = f"{point.what:34} {point.reached} (asked: {point.asked})"
    return textwrap.fill(text, 80, initial_indent=f"{verdict} ", subsequent_indent=" " * 41)


def run_parts(parts: Sequence[tuple[str, Callable[[], Iterator[Point]]]], as_json: bool) -> int:
    """Run parts by their names, print each point as it is known; 1 where one falls short."""
    found: list[Point] = []
    if not as_json:
        sys.stdout.write(f"{machine()}\n")
    for name, work in parts:
        wire.on_terminal(name)
        for point in points_of(name, work):
            found.append(point)
            wire.on_terminal("")
            if not as_json:
                sys.stdout.write(show(point) + "\n")
                sys.stdout.flush()
    short = sum(not point.good for point in found)
    if as_json:
        told = {"machine": machine(), "points": [asdict(point) for point in found]}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        sys.stdout.write(f"{len(found)} points, {short} short\n")
    return 1 if short else 0
