"""Rows of truth and of readers as keys, and what becomes of them when they are compared.

A key is (protocol, host, server address, server port). Rows of the truth marked `odd` or `partial`
count neither as missed nor, where they are found, as wrong. What we hold for right although the
truth does not list it stands in `surplus.tsv` with its evidence, and counts neither way as well.
"""

from __future__ import annotations

import csv
import hashlib
import ipaddress
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SURPLUS = Path(__file__).with_name("surplus.tsv")
Key = tuple[str, str, str, int]
PROTOCOLS = ("http", "tls", "quic")
LEAST_RECALL, LEAST_PRECISION, MOST_SURPLUS = 0.99, 0.995, 3  # recall of each protocol


@dataclass
class Score:
    """Rows of one kind: found, missed, and reported without being in the truth."""

    hits: int = 0
    missed: int = 0
    wrong: int = 0

    @property
    def recall(self) -> float:
        """Share of the truth that was found; 1 where there was nothing to find."""
        return self.hits / (self.hits + self.missed) if self.hits + self.missed else 1.0

    @property
    def precision(self) -> float:
        """Share of what was reported that is true."""
        return self.hits / (self.hits + self.wrong) if self.hits + self.wrong else 1.0

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return {
            "rows": self.hits + self.missed,
            "hits": self.hits,
            "missed": self.missed,
            "wrong": self.wrong,
            "recall": self.recall,
            "precision": self.precision,
        }


def captures(
    corpus: Path, progress: Callable[[str], None] = lambda _: None
) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """Every capture of a corpus with the rows of its truth."""
    paths = sorted(path for path in (corpus / "packets").iterdir() if path.is_file())
    for number, path in enumerate(paths, start=1):
        progress(f"{number}/{len(paths)} {path.name[:50]}")
        answers = corpus / "truth" / f"{path.name}.jsonl"
        text = answers.read_text(encoding="utf-8") if answers.exists() else ""
        yield path, [json.loads(line) for line in text.splitlines()]
    progress("")


def clean(host: str) -> str:
    """A host as the truth writes it."""
    host = host.strip().lower()
    if host.startswith("["):
        host = host[1:].split("]")[0]
    elif re.fullmatch(r"[^:]*:\d*", host):
        host = host.split(":")[0]
    return host.rstrip(".")


def address(text: str) -> str:
    """An address in one way of writing; IPv4 inside IPv6 is that of IPv4, as packets are kept."""
    try:
        found = ipaddress.ip_address(text)
        return str(getattr(found, "ipv4_mapped", None) or found)
    except ValueError:
        return text


def key_of_truth(row: dict[str, Any]) -> Key:
    """A row of the truth as a key."""
    return row["proto"], row["host"], address(row["server_ip"]), int(row["server_port"])


def key_of_session(row: dict[str, Any]) -> Key:
    """A row of `inspect` as a key."""
    return row["proto"], clean(row["host"]), address(row["server"]), int(row["server_port"])


def compare(
    keys: set[Key], truth: list[dict[str, Any]]
) -> tuple[set[Key], dict[Key, dict[str, Any]], set[Key]]:
    """Hits, misses (with their rows of the truth) and wrong rows."""
    counted = {
        key_of_truth(row): row for row in truth if not row.get("odd") and not row.get("partial")
    }
    passed_over = {key_of_truth(row) for row in truth} - counted.keys()
    missed = {key: row for key, row in counted.items() if key not in keys}
    return keys & counted.keys(), missed, keys - counted.keys() - passed_over


def fingerprint(key: Key) -> str:
    """What a key is called where no real name and no real address may stand."""
    return hashlib.sha256("\t".join(map(str, key)).encode()).hexdigest()[:16]


def surplus(file: Path = SURPLUS) -> dict[str, set[str]]:
    """Fingerprints of what is right without being in the truth, by the name of the capture."""
    found: dict[str, set[str]] = {}
    with open(file, newline="", encoding="utf-8") as rows:
        for row in csv.DictReader(rows, delimiter="\t"):
            assert row["evidence"], "without evidence nothing is right"
            found.setdefault(row["file"], set()).add(row["fingerprint"])
    return found


def without_surplus(capture: str, wrong: set[Key], right: dict[str, set[str]]) -> set[Key]:
    """The rows that are wrong also by our own lights."""
    return {key for key in wrong if fingerprint(key) not in right.get(capture, set())}
