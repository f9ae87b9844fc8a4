"""Ours and other readers over the same captures: recall and precision of each, side by side.

    python -m tests.bench.side_by_side [--corpus DIR] [--json] [--without-peers]

Recall is taken twice: over all rows (micro), where single captures with many sessions count as much
as they have rows, and as the mean of the captures that have rows (macro). The program fails where
ours misses what is asked, or falls behind another reader on a protocol, in either sense.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline import __version__
from tests.bench.readers import NFStream, Reader, peers
from tests.bench.recall import find_corpus
from tests.bench.rows import (
    LEAST_PRECISION,
    LEAST_RECALL,
    MOST_SURPLUS,
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


@dataclass
class Standing:
    """How one reader did: scores by protocol and over all, and recall by capture."""

    scores: dict[str, Score] = field(default_factory=dict)
    by_file: dict[str, list[float]] = field(default_factory=dict)
    wrong: list[tuple[str, Key]] = field(default_factory=list)

    def add(self, capture: str, hits: set[Key], missed: set[Key], wrong: set[Key]) -> None:
        """Add one capture."""
        for kind in ("all", *PROTOCOLS):
            of_kind = [
                sum(kind in ("all", key[0]) for key in keys) for keys in (hits, missed, wrong)
            ]
            score = self.scores.setdefault(kind, Score())
            score.hits += of_kind[0]
            score.missed += of_kind[1]
            score.wrong += of_kind[2]
            if of_kind[0] + of_kind[1]:
                self.by_file.setdefault(kind, []).append(of_kind[0] / (of_kind[0] + of_kind[1]))
        self.wrong += [(capture, key) for key in sorted(wrong)]

    def macro(self, kind: str) -> float:
        """Mean recall of the captures that have rows of this kind; 1 where none has."""
        shares = self.by_file.get(kind, [])
        return sum(shares) / len(shares) if shares else 1.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            kind: score.as_dict() | {"macro_recall": self.macro(kind)}
            for kind, score in self.scores.items()
        }


def ours(capture: Path) -> set[Key]:
    """`mirrorpoint inspect`."""
    reading = read(capture, "jsonl")
    return set() if reading.crash else {key_of_session(r) for r in reading.rows() if r["host"]}


def stand(
    corpus: Path, readers: dict[str, Reader], progress: Callable[[str], None] = lambda _: None
) -> dict[str, Standing]:
    """Let every reader read every capture."""
    found = {name: Standing() for name in readers}
    right = surplus()
    for capture, truth in captures(corpus, progress):
        for name, reader in readers.items():
            hits, missed, wrong = compare(reader(capture), truth)
            wrong = without_surplus(capture.name, wrong, right)
            found[name].add(capture.name, hits, set(missed), wrong)
    return found


def short_of(found: dict[str, Standing]) -> Iterator[str]:
    """Each thing that is asked of the first reader and not reached, as a sentence."""
    (name, mine), *others = found.items()
    for kind in PROTOCOLS:
        score = mine.scores[kind]
        if score.recall < LEAST_RECALL:
            yield f"{kind}: recall {score.recall:.1%}, asked >= {LEAST_RECALL:.0%}"
        for other, standing in others:
            for sense, we, they in (
                ("", score.recall, standing.scores[kind].recall),
                (" by capture", mine.macro(kind), standing.macro(kind)),
            ):
                if we < they:
                    yield f"{kind}: recall{sense} {we:.1%}, {other} has {they:.1%}"
    precision = mine.scores["all"].precision
    if precision < LEAST_PRECISION:
        yield f"{name}: precision {precision:.2%}, asked >= {LEAST_PRECISION:.1%}"
    held_right = sum(len(keys) for keys in surplus().values())
    if held_right > MOST_SURPLUS:
        yield f"{held_right} rows are held for right against the truth, at most {MOST_SURPLUS}"


def show(found: dict[str, Standing]) -> str:
    """A Markdown table: recall over rows and by capture, and precision."""
    kinds = ("all", *PROTOCOLS)
    mine = next(iter(found.values()))
    rows = [f"{kind} ({mine.scores[kind].hits + mine.scores[kind].missed})" for kind in kinds]
    lines = [f"| recall, rows / captures | {' | '.join(rows)} | precision |"]
    lines.append("|---" * (len(kinds) + 2) + "|")
    for name, standing in found.items():
        cells = [f"{standing.scores[k].recall:.3f} / {standing.macro(k):.3f}" for k in kinds]
        lines.append(f"| {name} | {' | '.join(cells)} | {standing.scores['all'].precision:.3f} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Read, compare, print."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.side_by_side", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--without-peers", action="store_true", help="ours alone")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    corpus = find_corpus(given.corpus)
    if corpus is None:
        sys.stderr.write("no corpus of captures here: give --corpus DIR\n")
        return 2
    with tempfile.TemporaryDirectory(prefix="mirrorpoint-peers-") as folder:
        readers: dict[str, Reader] = {f"mirrorpoint {__version__}": ours}
        readers |= {} if given.without_peers else peers(Path(folder))
        try:
            found = stand(corpus, readers)
        finally:
            for reader in readers.values():
                if isinstance(reader, NFStream):
                    reader.close()
    short = list(short_of(found))
    if given.json:
        told = {"readers": {n: s.as_dict() for n, s in found.items()}, "short": short}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        sys.stdout.write(show(found) + "".join(f"SHORT {what}\n" for what in short))
    return 1 if short else 0


if __name__ == "__main__":
    raise SystemExit(main())
