"""Targets that fail, so that the harness is known to tell of it: it guards everything else here.

Each fails on inputs that are not printable, as all seeds are: by raising, by taking for ever, and
by raising only where kernels are compiled, which no guided run sees.
"""

from __future__ import annotations

from pipeline.kernels.compile import INTERPRETED
from pipeline.model.texts import is_plain
from tests.fuzz.target import Target


def seeds() -> list[bytes]:
    """Input that is good."""
    return [b"plain text", b"more"]


def check_good(raw: bytes) -> bool:
    """Never fails. What a printable text is and what not are two branches of the first."""
    text = raw.decode("latin-1")
    return is_plain(text) and text.isprintable()


def check_raises(raw: bytes) -> None:
    """Says so at once."""
    if not check_good(raw):
        raise ValueError("not plain")


def check_hangs(raw: bytes) -> None:
    """Takes for ever."""
    while not check_good(raw):
        pass


def check_differs(raw: bytes) -> None:
    """Fails where the kernels are compiled."""
    if not check_good(raw) and not INTERPRETED:
        raise ValueError("only when compiled")


CHECKS = {
    "good": check_good, "raises": check_raises, "hangs": check_hangs, "differs": check_differs,
}  # fmt: skip
TARGETS = {name: Target(name, check, seeds, 20) for name, check in CHECKS.items()}
