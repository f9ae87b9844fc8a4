"""Who held which address, and on what basis: lists of facts, read from end to end."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fact:
    """Something that holds from `event_ns` on and is known since `received_ns`."""

    event_ns: int
    received_ns: int
    value: int


def latest(facts: list[Fact], t: int, known_ns: int) -> Fact | None:
    """The fact that rules at t: the latest event, of those the latest received, of those the last."""
    found = None
    for fact in facts:
        if fact.event_ns <= t and fact.received_ns <= known_ns:
            rank = (fact.event_ns, fact.received_ns)
            if found is None or rank >= (found.event_ns, found.received_ns):
                found = fact
    return found


@dataclass
class NaiveCircle:
    """Facts by prefix (high word, low word, length) and by subscriber."""

    bindings: dict[tuple[int, int], list[Fact]] = field(default_factory=dict)
    basis: dict[int, list[Fact]] = field(default_factory=dict)

    def bind(
        self, hi: int, lo: int, length: int, subscriber: int, event_ns: int, received_ns: int
    ) -> None:
        """A subscriber (or -1) has a prefix from now on."""
        network = (hi << 64 | lo) >> (128 - length)
        facts = self.bindings.setdefault((network, length), [])
        facts.append(Fact(event_ns, received_ns, subscriber))

    def set_basis(self, subscriber: int, state: int, event_ns: int, received_ns: int) -> None:
        """A subscriber's standing."""
        self.basis.setdefault(subscriber, []).append(Fact(event_ns, received_ns, state))

    def holders(self, hi: int, lo: int, t: int, known_ns: int) -> int:
        """Who held an address: the longest prefix that anybody held rules; -1 for nobody."""
        address = hi << 64 | lo
        for length in range(128, 0, -1):
            facts = self.bindings.get((address >> (128 - length), length), [])
            found = latest(facts, t, known_ns)
            if found is not None and found.value >= 0:
                return found.value
        return -1

    def bases(self, subscriber: int, t: int, known_ns: int) -> int:
        """The basis of a subscriber, 0 for unknown."""
        found = latest(self.basis.get(subscriber, []), t, known_ns)
        return 0 if found is None or subscriber < 0 else found.value
