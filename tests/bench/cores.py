"""What a second core of this machine is worth at a moment.

Where the machine is a virtual one, two of its cores may be two threads of one, or shared with
others, now and then: two loops that have nothing in common then take up to twice as long as one.
What programs win by sharing work is told beside what such loops win.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Sequence

LOOP = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
began, count = time.perf_counter(), 0
while count < int(sys.argv[2]):
    count += 1
print(time.perf_counter() - began)
"""
STEPS = 3_000_000  # a quarter of a second


def worth(cores: Sequence[int], steps: int = STEPS) -> float:
    """How many times as much these cores do together as one of them does alone, on average."""
    alone = statistics.mean(_seconds([core], steps)[0] for core in cores)
    return len(cores) * alone / max(_seconds(cores, steps))


def _seconds(cores: Sequence[int], steps: int) -> list[float]:
    """How long a loop takes on each core, all at once."""
    command = [sys.executable, "-c", LOOP]
    running = [
        subprocess.Popen([*command, str(core), str(steps)], stdout=subprocess.PIPE, text=True)
        for core in cores
    ]
    return [float(process.communicate()[0]) for process in running]
