"""Recall and precision of `mirrorpoint inspect` over the real captures, against tshark's answers.

    python -m tests.bench.recall [--corpus DIR] [--misses] [--json]

A row is (protocol, host, server address, server port); truth and rules of comparison are
described in the corpus' README: rows marked `odd` or `partial` count neither as missed nor as
wrong. Fails where a protocol's recall, or the precision, is below what is asked.

The corpus is the folder given, or MIRRORPOINT_CORPUS, or ../shared/corpus beside the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.rows import (
    LEAST_PRECISION,
    LEAST_RECALL,
    PROTOCOLS,
    Key,
    Score,
    captures,
    compare,
    key_of_session,
    surplus,
    without_surplus,
)
from tests.corpus.reading import read

REPOSITORY = Path(__file__).resolve().parent.parent.parent


@dataclass
class Recall:
    """Scores by kind, and which rows of which file were missed or wrong."""

    scores: dict[str, Score] = field(default_factory=dict)
    misses: list[tuple[str, Key, str]] = field(default_factory=list)
    wrong: list[tuple[str, Key]] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    files: int = 0

    def add(self, kind: str, hits: int = 0, missed: int = 0, wrong: int = 0) -> None:
        """Add to one kind of rows."""
        score = self.scores.setdefault(kind, Score())
        score.hits += hits
        score.missed += missed
        score.wrong += wrong

    def of(self, *kinds: str) -> Score:
        """The scores of these kinds as one."""
        found = [self.scores.get(kind, Score()) for kind in kinds]
        return Score(
            sum(s.hits for s in found), sum(s.missed for s in found), sum(s.wrong for s in found)
        )

    def short(self) -> list[str]:
        """What is asked and not reached."""
        told = []
        for kind in PROTOCOLS:
            if (reached := self.of(kind).recall) < LEAST_RECALL:
                told.append(f"{kind}: recall {reached:.1%}, asked: >= {LEAST_RECALL:.0%}")
        if (reached := self.of("all").precision) < LEAST_PRECISION:
            told.append(f"precision {reached:.2%}, asked: >= {LEAST_PRECISION:.1%}")
        return told

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "files": self.files,
            "scores": {kind: score.as_dict() for kind, score in self.scores.items()},
            "misses": [{"file": f, "row": list(k), "layers": x} for f, k, x in self.misses],
            "wrong": [{"file": f, "row": list(k)} for f, k in self.wrong],
            "failed": [{"file": f, "why": why} for f, why in self.failed],
        }


def find_corpus(given: Path | None = None) -> Path | None:
    """The corpus, or None where it is not here."""
    for place in (given, os.environ.get("MIRRORPOINT_CORPUS"), REPOSITORY.parent / "shared/corpus"):
        if place:
            return Path(place) if (Path(place) / "packets").is_dir() else None
    return None


def score_file(result: Recall, capture: Path, truth: list[dict[str, Any]]) -> None:
    """Read one capture and add what was found and missed."""
    result.files += 1
    reading = read(capture, "jsonl")
    if reading.crash:
        result.failed.append((capture.name, reading.crash.splitlines()[-1]))
        found: list[dict[str, Any]] = []
    else:
        found = reading.rows()
    hits, missed, wrong = compare({key_of_session(row) for row in found if row["host"]}, truth)
    wrong = without_surplus(capture.name, wrong, surplus())
    for key in hits | missed.keys():
        counted = {"hits": 1} if key in hits else {"missed": 1}
        result.add("all", **counted)
        result.add(key[0], **counted)
    for key in wrong:
        result.add("all", wrong=1)
        result.add(key[0], wrong=1)
    result.misses += [(capture.name, key, row["layers"]) for key, row in sorted(missed.items())]
    result.wrong += [(capture.name, key) for key in sorted(wrong)]


def score(corpus: Path, progress: Callable[[str], None] = lambda _: None) -> Recall:
    """Read every capture of the corpus and compare."""
    result = Recall()
    for capture, truth in captures(corpus, progress):
        score_file(result, capture, truth)
    return result


def show(result: Recall, misses: bool) -> str:
    """The scores as a table; with `misses` every row that was missed or wrong."""
    lines = [f"{result.files} captures", f"{'':8} {'rows':>5} {'recall':>7} {'precision':>9}"]
    for kind, one in result.scores.items():
        rows = one.hits + one.missed
        lines.append(f"{kind:8} {rows:5} {one.recall:7.3f} {one.precision:9.3f}")
    lines += [f"failed: {name}: {why}" for name, why in result.failed]
    if misses:
        for name, (proto, host, server, port), layers in result.misses:
            lines.append(f"missed {proto} {host} {server}:{port} in {name} ({layers})")
        for name, (proto, host, server, port) in result.wrong:
            lines.append(f"wrong  {proto} {host} {server}:{port} in {name}")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Score and print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.recall", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--misses", action="store_true", help="list rows missed and wrong")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    corpus = find_corpus(given.corpus)
    if corpus is None:
        sys.stderr.write("no corpus of captures here: give --corpus DIR\n")
        # It stays beside the checkout and may be absent; a folder that was named may not.
        return 2 if given.corpus or os.environ.get("MIRRORPOINT_CORPUS") else 0
    result = score(corpus)
    text = json.dumps(result.as_dict(), indent=2) + "\n" if given.json else ""
    sys.stdout.write(text or show(result, given.misses))
    if not any(score.hits + score.missed for score in result.scores.values()):
        sys.stderr.write("the corpus names no session: nothing was measured\n")
        return 1
    short = result.short()
    sys.stderr.write("".join(f"{what}\n" for what in short))
    return 1 if short or result.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
