"""Named places where a test may kill the process, to see that the next start goes on from there.

`crash_point(name)` does nothing but count, unless the environment says where to die:

    MIRRORPOINT_CRASH=journal.before_fsync      the first pass of that place
    MIRRORPOINT_CRASH=journal.before_fsync:3    its third pass
    MIRRORPOINT_CRASH=step:250                  the 250th pass of any place
    MIRRORPOINT_CRASH=count:FILE                nowhere; at exit the passes are written to FILE

The end is SIGKILL: no handler, no `finally`, no buffer of ours is flushed. The variable is read
once, at the first pass. A name that does not exist is an error, not a test that passes because
nothing happened.

A simulation, which has many crashes in one process, asks for them with `crashing`: there the end is
a `Crash`, and what is on the disk at that moment is what is left.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "MIRRORPOINT_CRASH"

CRASH_POINTS = (
    "journal.before_write",
    "journal.half_frame",
    "journal.before_fsync",
    "journal.after_fsync",
    "journal.before_seal",
    "journal.after_seal",
    "ingest.after_facts",
    "ingest.after_packets",
    "project.before_insert",
    "project.half_insert",
    "project.after_insert",
    "accrue.after_cut",
    "accrue.before_post",
    "book.before_commit",
    "book.after_commit",
    "outbox.before_insert",
    "outbox.after_insert",
    "accrue.before_done",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Die at pass `nth` of `point` (None: of any); nth 0 is never."""

    point: str | None
    nth: int


class Crash(BaseException):
    """The end of the process, in a simulation of it; nothing but the simulation may catch it."""


_passes: Counter[str] = Counter()
_plan: Plan | None = None
_simulated = False


def crash_point(name: str, half: Callable[[], object] | None = None) -> None:
    """Die here if this pass is the one asked for; `half` is done first, to leave work half done."""
    global _plan
    assert name in CRASH_POINTS, name
    if _plan is None:
        _plan = read_plan(os.environ.get(VARIABLE, ""))
    _passes[name] += 1
    if _plan.nth == 0 or _plan.point not in (None, name):
        return
    if (_passes[name] if _plan.point else _passes.total()) == _plan.nth:
        if half is not None:
            half()
        if _simulated:
            raise Crash(name)
        os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def crashing(point: str, nth: int = 1) -> Iterator[None]:
    """Within this, raise `Crash` at the nth pass of a place; it counts from here."""
    global _plan, _passes, _simulated
    assert point in CRASH_POINTS, point
    before = _plan, _passes, _simulated
    _plan, _passes, _simulated = Plan(point, nth), Counter(), True
    try:
        yield
    finally:
        _plan, _passes, _simulated = before


def passes() -> dict[str, int]:
    """How often each place was passed in this process."""
    return dict(_passes)


def read_plan(text: str) -> Plan:
    """What the variable asks for. Raises ValueError with the words that would be right."""
    if not text:
        return Plan(None, 0)
    name, _, rest = text.partition(":")
    if name == "count" and rest:
        atexit.register(_write_passes, Path(rest))
        return Plan(None, 0)
    number = rest or ("" if name == "step" else "1")
    if name != "step" and name not in CRASH_POINTS:
        raise ValueError(
            f"{VARIABLE}={text}: no such crash point; there are {', '.join(CRASH_POINTS)},"
            " step:N and count:FILE"
        )
    if not number.isdecimal() or int(number) < 1:
        raise ValueError(f"{VARIABLE}={text}: the pass is counted from 1, as in {name}:1")
    return Plan(None if name == "step" else name, int(number))


def _write_passes(path: Path) -> None:
    path.write_text(json.dumps(passes(), sort_keys=True))
