"""Reads heads of the book's chains that were kept elsewhere, as `job audit --head` prints them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pipeline.run.failures import RequestError

WRONG = 2
HEADS_MAX = 100_000  # three a day for ninety years
CHAINS = ("postings", "requests", "trail")
LINK = re.compile(r"[0-9a-f]{64}\Z", re.ASCII)


def read_heads(path: Path) -> list[dict[str, Any]]:
    """The heads in a file of JSON lines. Raises RequestError with every line that is none."""
    found, problems = [], []
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        head = _head(line)
        if head is None:
            problems.append(f"{path}:{number}: is no head, which `job audit --head` prints")
        else:
            found.append(head)
    if len(found) > HEADS_MAX:
        problems.append(f"{path}: has more than {HEADS_MAX:,} heads; compare them in parts")
    if not found and not problems:
        problems.append(f"{path}: has no heads, which `job audit --head` prints")
    if problems:
        raise RequestError("\n".join(problems), WRONG)
    return found


def _head(line: str) -> dict[str, Any] | None:
    try:
        said = json.loads(line)
        chain, number, link = said["chain"], said["number"], said["link"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    good = isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**62
    if chain not in CHAINS or not good or not isinstance(link, str) or not LINK.match(link):
        return None
    return {"chain": chain, "number": number, "link": link}
