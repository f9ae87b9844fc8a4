"""When outsiders lately signed in where, as keyed hashes in memory, for starts that come late.

A member's start may arrive after that of an outsider who took the address since. Bound without an
end, the member would hold what is somebody else's, and that one's packets would be read. So the
directory asks here whether an outsider came to the prefix after the start's event time, and ends
the interval there.

Nothing of it is written anywhere: what is kept are hashes under a key, bounded in number (the
earliest that arrived leave first), for as long as the directory lives, which is one unit of input.
A hash tells nothing of what overlaps it, so a prefix stands under one for itself and one for each
wider prefix of a length that sign-ins have had so far: operators give out two or three lengths.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque

from pipeline.model.addresses import cut_prefix
from pipeline.model.identifiers import digest

Prefix = tuple[int, int, int]  # high word, low word, length of the 128 bits
SIGN_INS_MAX = 1 << 16


class Outsiders:
    """The last `most` sign-ins of outsiders: event times (ns) by the hash of a prefix."""

    def __init__(self, key: bytes, most: int = SIGN_INS_MAX) -> None:
        self._key, self._most = key, most
        self._lengths: set[int] = set()
        self._times: dict[bytes, list[int]] = {}
        self._order: deque[tuple[int, list[bytes]]] = deque()

    def learn(self, length: int) -> None:
        """Sign-ins have prefixes of this length."""
        self._lengths.add(length)

    def note(self, prefix: Prefix, event_ns: int) -> None:
        """An outsider has this prefix from then on."""
        hi, lo, length = prefix
        wider = [cut_prefix(hi, lo, n) for n in self._lengths if n < length]
        hashes = [self._hash("itself", prefix), *(self._hash("inside", one) for one in wider)]
        for one in hashes:
            insort(self._times.setdefault(one, []), event_ns)
        self._order.append((event_ns, hashes))
        if len(self._order) > self._most:
            self._forget_earliest()

    def next_after(self, prefix: Prefix, event_ns: int) -> int | None:
        """When the first of those who came to this prefix, to one around it or inside it, after
        `event_ns` did so; None where nobody is known to have.
        """
        hi, lo, length = prefix
        around = [cut_prefix(hi, lo, n) for n in self._lengths | {length} if n <= length]
        hashes = [self._hash("inside", prefix), *(self._hash("itself", one) for one in around)]
        found = []
        for one in hashes:
            times = self._times.get(one, [])
            found += times[bisect_right(times, event_ns) :][:1]
        return min(found, default=None)

    def _forget_earliest(self) -> None:
        event_ns, hashes = self._order.popleft()
        for one in hashes:
            self._times[one].remove(event_ns)
            if not self._times[one]:
                del self._times[one]

    def _hash(self, how: str, prefix: Prefix) -> bytes:
        return digest(self._key, "outsider", how, *prefix)
