"""Every capture of the corpus through `inspect`: nothing crashes, nothing hangs, every gap is
counted.

Other people made these files: cut short, fuzzed, of link types nobody reads, and ordinary ones.
They are read by the command itself, a share of them per process (tests/corpus/reading.py), and a
process that takes too long is stopped and the file it was busy with is named.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.capture.recognise import byte_order
from tests.corpus.reading import Reading, read
from tests.need import REPOSITORY, corpus

FILES_A_PROCESS = 120
SECONDS_A_PROCESS = 120
SECONDS_TO_COMPILE = 280
# One fixture reads everything, so each test may take as long as all processes together.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS_TO_COMPILE + 8 * SECONDS_A_PROCESS)]
SECONDS_A_FILE = 5.0
FIELDS = {"first_ns", "proto", "host", "client", "client_port", "server", "server_port"}


@dataclass(frozen=True)
class Corpus:
    """What the manifest says of each file, and how each was read."""

    folder: Path
    manifest: dict[str, dict[str, str]]
    counts: dict[str, Reading]


def is_classic(capture: Path) -> bool:
    """Is this a classic pcap file, by its first bytes?"""
    with open(capture, "rb") as file:
        return byte_order(file.read(4)) is not None


def warm(capture: Path) -> None:
    """Read one file first, as long as it may take: kernels that nobody has used yet compile."""
    command = [sys.executable, "-m", "tests.corpus.reading", "count", str(capture)]
    subprocess.run(
        command, cwd=REPOSITORY, check=True, capture_output=True, timeout=SECONDS_TO_COMPILE
    )


def read_all(shape: str, captures: list[Path]) -> dict[str, Reading]:
    """Read files in several processes, one after the other."""
    warm(next(path for path in captures if is_classic(path)))
    readings: dict[str, Reading] = {}
    for first in range(0, len(captures), FILES_A_PROCESS):
        share = captures[first : first + FILES_A_PROCESS]
        command = [sys.executable, "-m", "tests.corpus.reading", shape, *map(str, share)]
        try:
            done = subprocess.run(
                command,
                cwd=REPOSITORY,
                capture_output=True,
                text=True,
                timeout=SECONDS_A_PROCESS,
                check=False,
            )
            lines, died = done.stdout.splitlines(), done.returncode != 0
            why = f"ended with {done.returncode}: {done.stderr[-2000:]}"
        except subprocess.TimeoutExpired as late:
            printed = late.stdout or b""
            text = printed if isinstance(printed, str) else printed.decode()
            lines, died, why = text.splitlines(), True, f"took more than {SECONDS_A_PROCESS} s"
        for line in lines:
            reading = Reading(**json.loads(line))
            readings[reading.file] = reading
        if died:
            pytest.fail(f"while reading {share[min(len(lines), len(share) - 1)].name}: {why}")
    return readings


@pytest.fixture(scope="module")
def everything() -> Corpus:
    folder = corpus()
    with open(folder / "MANIFEST.tsv", newline="", encoding="utf-8") as file:
        rows = {Path(row["file"]).name: row for row in csv.DictReader(file, delimiter="\t")}
    captures = sorted(p for p in (folder / "packets").iterdir() if p.is_file())
    return Corpus(folder, rows, read_all("count", captures))


def faults_of(count: dict[str, Any]) -> int:
    return sum(count["faults"].values())


def test_all_are_here(everything: Corpus) -> None:
    assert len(everything.counts) == len(list((everything.folder / "packets").iterdir()))
    assert len(everything.counts) >= 681


def test_nothing_crashes(everything: Corpus) -> None:
    crashed = {name: r.crash for name, r in everything.counts.items() if r.crash}
    assert not crashed, "\n".join(f"{name}:\n{crash}" for name, crash in crashed.items())


def test_nothing_hangs(everything: Corpus) -> None:
    slow = {n: r.seconds for n, r in everything.counts.items() if r.seconds > SECONDS_A_FILE}
    assert not slow, slow


def test_exit_code_says_it_was_read(everything: Corpus) -> None:
    other = {n: (r.exit_code, r.errors) for n, r in everything.counts.items() if r.exit_code > 1}
    assert not other, other


def test_what_cannot_be_read_is_a_counted_fault(everything: Corpus) -> None:
    silent = []
    for name, reading in everything.counts.items():
        count = reading.count()
        promised = int(everything.manifest[name]["packets"] or 0)
        if count["packets"] < promised and not faults_of(count):
            silent.append((name, count["packets"], promised))
    assert not silent, silent


def test_every_packet_is_read_whatever_the_container(everything: Corpus) -> None:
    short = []
    for name, reading in everything.counts.items():
        count, row = reading.count(), everything.manifest[name]
        # A section of a version that nobody knows may hold packets for all we know.
        strange = "section_unsupported" in count["faults"]
        if "bad record" not in row["exercises"] and not strange and row["packets"]:
            # A packet cut off at the end of the file may have been counted as one, or not.
            least = int(row["packets"]) - ("cut short" in row["exercises"])
            if not least <= count["packets"]:
                short.append((name, count["packets"], row["packets"]))
    assert not short, short


def test_sessions_are_named_as_documented(everything: Corpus) -> None:
    chosen = [n for n, r in everything.counts.items() if sum(r.count()["sessions"].values())][:25]
    assert chosen
    for name in chosen:
        for row in read(everything.folder / "packets" / name, "jsonl").rows():
            assert row.keys() >= FIELDS, name
            assert row["proto"] in ("http", "tls", "quic")
            assert row["host"] == row["host"].lower().rstrip(".")
            assert ("target" in row) == (row["proto"] == "http")


def test_readings_do_not_depend_on_company(everything: Corpus) -> None:
    names = sorted(everything.counts)
    for name in names[:: max(len(names) // 12, 1)]:
        alone = read(everything.folder / "packets" / name, "count").count()
        together = everything.counts[name].count()
        for told in ("packets", "bytes", "flows", "sessions", "faults"):
            assert alone[told] == together[told], (name, told)
