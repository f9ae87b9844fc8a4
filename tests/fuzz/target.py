"""What a target is: a parser, an oracle, and forged input to begin with.

A target's `check` takes any bytes and raises where the parser raises, or says something else than
its twin. It is the same function whether kernels run as Python, which is when coverage guides, or
compiled, which is when every input that added coverage is checked again: both are compared with
one twin, so also with each other.

Bytes become packets by a small code, since a fuzzer that had to guess check sums, lengths and seals
would never come past them: `Tape` reads it, and always comes to an end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A parser to be fuzzed. `longest` bytes of input, `words` that a mutation may put in; `runs`
    of it take some two seconds.
    """

    name: str
    check: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]
    longest: int = 600
    words: tuple[bytes, ...] = ()
    runs: int = 5000


class Tape:
    """Bytes that are read once; behind the end are zeros, and no more of anything."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    def __bool__(self) -> bool:
        return self._at < len(self._raw)

    def byte(self) -> int:
        """The next byte."""
        return self.number(1)

    def number(self, size: int) -> int:
        """The next bytes as a number."""
        return int.from_bytes(self.take(size).ljust(size, b"\0"), "big")

    def take(self, size: int) -> bytes:
        """So many bytes, if there are."""
        found = self._raw[self._at : self._at + size]
        self._at += size
        return found

    def rest(self) -> bytes:
        """All the others."""
        return self.take(len(self._raw))


def same(found: object, expected: object) -> None:
    """Both are equal, or it says what they are."""
    if found != expected:
        raise AssertionError(f"kernel: {found!r}\ntwin:   {expected!r}")
