"""Measured figures, how they are repeated and how they are shown.

A figure is the median of several runs. Whoever shares the machine slows wall time but hardly CPU
time, so both are kept: a rate "of one core" is packets by wall seconds, and where CPU seconds
tell a much better story the machine was busy and the line says so.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LEAST_LONGER = 0.2  # share of a large run by which it must outlast a small one to tell a slope
BUSY = 1.3  # wall seconds per CPU second above which a figure is called disturbed


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of one run: by the clock, and of processors (children included)."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Figure:
    """What was measured: `packets` in the median of `runs`."""

    name: str
    packets: int
    runs: tuple[Spent, ...]
    note: str = ""

    @property
    def seconds(self) -> float:
        """Median wall seconds."""
        return statistics.median(run.wall for run in self.runs)

    @property
    def cpu_seconds(self) -> float:
        """Median CPU seconds."""
        return statistics.median(run.cpu for run in self.runs)

    @property
    def rate(self) -> float:
        """Packets per second, by the median wall time."""
        return self.packets / self.seconds

    @property
    def disturbed(self) -> bool:
        """Did the clock run much longer than the processor?"""
        return self.seconds > BUSY * self.cpu_seconds

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "packets": self.packets,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "packets_per_second": self.rate,
            "runs": [run.wall for run in self.runs],
            "note": self.note,
        }


def measure(work: Callable[[], object]) -> Spent:
    """Run once."""
    cpu, wall = _cpu(), time.perf_counter()
    work()
    return Spent(time.perf_counter() - wall, _cpu() - cpu)


def _cpu() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


def repeat(
    works: Sequence[tuple[str, int, Callable[[], object]]],
    runs: int,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Figure]:
    """Run all of (name, packets, work) in turn, `runs` times, so that all share a bad moment."""
    spent: dict[str, list[Spent]] = {name: [] for name, _, _ in works}
    for number in range(runs):
        for name, _, work in works:
            progress(f"{name} ({number + 1}/{runs})")
            spent[name].append(measure(work))
    progress("")
    return {name: Figure(name, packets, tuple(spent[name])) for name, packets, _ in works}


def slope(small: Figure, large: Figure) -> tuple[float, float]:
    """Start-up seconds and packets per second, from a small and a large run of one program.

    Where the two took nearly the same time (a start-up longer than the work, or a small run that
    somebody disturbed) their difference is noise: nothing is known of the start then, and the rate
    is that of the large run as a whole.
    """
    assert large.packets > small.packets
    longer = large.seconds - small.seconds
    if longer < LEAST_LONGER * large.seconds:
        return 0.0, large.rate
    rate = (large.packets - small.packets) / longer
    return max(small.seconds - small.packets / rate, 0.0), rate


def machine(load: bool = True) -> str:
    """One line on what this was measured on, and how busy that was."""
    model = platform.machine()
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = next((int(x.split()[1]) for x in _lines(Path("/proc/meminfo"))), 0)
    parts = [
        f"{model}, {os.cpu_count()} cores, {memory / 2**20:.0f} GiB, Linux {platform.release()}",
        f"Python {platform.python_version()}",
        f"load {os.getloadavg()[0]:.1f}",
    ]
    return ", ".join(parts if load else parts[:-1])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def scratch(needed_bytes: int) -> Path:
    """A folder for large files: memory where three times the room is free, else the usual one."""
    memory = Path("/dev/shm")
    try:
        room = os.statvfs(memory)
        free = room.f_bavail * room.f_frsize
        available = next(
            int(x.split()[1]) * 1024
            for x in _lines(Path("/proc/meminfo"))
            if x.startswith("MemAvailable")
        )
    except (OSError, StopIteration):
        return Path(os.environ.get("TMPDIR", "/tmp"))
    if min(free, available) > 3 * needed_bytes and os.access(memory, os.W_OK):
        return memory
    return Path(os.environ.get("TMPDIR", "/tmp"))
