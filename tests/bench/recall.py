"""Recall and precision of `mirrorpoint inspect` over the real captures, against tshark's answers.

    python -m tests.bench.recall [--corpus DIR] [--misses] [--json]

A row is (protocol, host, server address, server port); truth and rules of comparison are
described in the corpus' README: rows marked `odd` or `partial` count neither as missed nor as
wrong. Told apart are the protocols and, for what this version promises to read, classic pcap over
Ethernet: all its rows, and of them those that lie under plain Ethernet and IP (tags allowed, no
tunnel).

The corpus is the folder given, or MIRRORPOINT_CORPUS, or ../shared/corpus beside the checkout.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.rows import (
    Key,
    Score,
    compare,
    key_of_session,
    key_of_truth,
    surplus,
    without_surplus,
)
from tests.corpus.reading import read

REPOSITORY = Path(__file__).resolve().parent.parent.parent
CLASSIC = (b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1")
PLAIN_LAYERS = re.compile(r"eth:ethertype(:vlan:ethertype)*:(ip|ipv6|ipv6:ipv6\.\w+):tcp(:.*)?")
PROMISED = ("http", "tls")
LEAST = 0.85  # recall asked of SCOPE
SCOPE = "classic pcap over Ethernet and IP, http and tls"


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


def is_classic(capture: Path) -> bool:
    """Is this a classic pcap file, by its first bytes?"""
    with open(capture, "rb") as file:
        return file.read(4) in CLASSIC


def score_file(result: Recall, capture: Path, truth: list[dict[str, Any]], link: str) -> None:
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
    layers = {key_of_truth(row): row["layers"] for row in truth}
    for key in hits | missed.keys():
        counted = {"hits": 1} if key in hits else {"missed": 1}
        result.add("all", **counted)
        result.add(key[0], **counted)
        if key[0] in PROMISED and link == "Ethernet" and is_classic(capture):
            result.add("classic pcap, link type Ethernet, http and tls", **counted)
            if PLAIN_LAYERS.fullmatch(layers[key]):
                result.add(SCOPE, **counted)
    for key in wrong:
        result.add("all", wrong=1)
        result.add(key[0], wrong=1)
        if link == "Ethernet" and is_classic(capture):
            result.add("classic pcap, link type Ethernet, http and tls", wrong=1)
            result.add(SCOPE, wrong=1)
    result.misses += [(capture.name, key, row["layers"]) for key, row in sorted(missed.items())]
    result.wrong += [(capture.name, key) for key in sorted(wrong)]


def score(corpus: Path, progress: Callable[[str], None] = lambda _: None) -> Recall:
    """Read every capture of the corpus and compare."""
    with open(corpus / "MANIFEST.tsv", newline="", encoding="utf-8") as file:
        links = {Path(r["file"]).name: r["linktype"] for r in csv.DictReader(file, delimiter="\t")}
    result = Recall()
    captures = sorted(p for p in (corpus / "packets").iterdir() if p.is_file())
    for number, capture in enumerate(captures, start=1):
        progress(f"{number}/{len(captures)} {capture.name[:50]}")
        answers = corpus / "truth" / f"{capture.name}.jsonl"
        text = answers.read_text(encoding="utf-8") if answers.exists() else ""
        truth = [json.loads(line) for line in text.splitlines()]
        score_file(result, capture, truth, links.get(capture.name, ""))
    progress("")
    return result


def show(result: Recall, misses: bool) -> str:
    """The scores as a table; with `misses` every row that was missed or wrong."""
    lines = [f"{result.files} captures", f"{'':52} {'rows':>5} {'recall':>7} {'precision':>9}"]
    for kind, one in result.scores.items():
        rows = one.hits + one.missed
        lines.append(f"{kind:52} {rows:5} {one.recall:7.3f} {one.precision:9.3f}")
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
    scope = result.scores.get(SCOPE)
    if scope is not None and scope.recall < LEAST:
        sys.stderr.write(f"{SCOPE}: recall {scope.recall:.1%}, asked: >= {LEAST:.0%}\n")
        return 1
    return 1 if result.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
