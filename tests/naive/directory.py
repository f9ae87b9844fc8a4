"""What sign-ins lead to, told slowly: one list of facts, searched whole for each question.

Rows that come out are (kind, subscriber, prefix, event, received); a subscriber is its number in
the order in which the circle first named it, -1 for an END.
"""

from __future__ import annotations

START, INTERIM, STOP = 1, 2, 3
BIND, END = 1, 2
MEMBER = (1, 2)

Prefix = tuple[int, int, int]


def bits(prefix: Prefix) -> str:
    return format(prefix[0] << 64 | prefix[1], "0128b")[: prefix[2]]


class NaiveDirectory:
    def __init__(self) -> None:
        self.logins: list[str] = []
        self.basis: list[tuple[int, int, int, int]] = []  # subscriber, event, received, state
        self.facts: list[tuple[str, int, int, int]] = []  # bits, event, received, subscriber
        self.prefixes: dict[str, Prefix] = {}
        self.outsiders: list[tuple[str, int, set[int]]] = []  # bits, event, lengths known then
        self.lengths: set[int] = set()

    def circle(self, login: str, state: int, event: int, received: int) -> None:
        if login not in self.logins:
            self.logins.append(login)
        self.basis.append((self.logins.index(login), event, received, state))

    def is_member(self, login: str, event: int, received: int) -> bool:
        known = [
            (fact[1], fact[2], row, fact[3])
            for row, fact in enumerate(self.basis)
            if login in self.logins
            and fact[0] == self.logins.index(login)
            and fact[1] <= max(event, received)
            and fact[2] <= received
        ]
        return bool(known) and max(known)[3] in MEMBER

    def holder(self, prefix: str, t: int) -> int:
        known = [
            (fact[1], fact[2], row, fact[3])
            for row, fact in enumerate(self.facts)
            if fact[0] == prefix and fact[1] <= t
        ]
        return max(known)[3] if known else -1

    def sign_in(self, kind: int, login: str, prefix: Prefix, event: int, received: int) -> list:
        mine = bits(prefix)
        self.prefixes[mine] = prefix
        self.lengths.add(prefix[2])
        held = {p: who for p in self.prefixes if (who := self.holder(p, event)) >= 0}
        index = self.logins.index(login) if login in self.logins else -1
        ends: list[str] = []
        bind = False
        if kind == STOP:
            free = mine not in held and self.is_member(login, event, received)
            ends = [mine] if index >= 0 and (held.get(mine) == index or free) else []
        elif self.is_member(login, event, received):
            bind = held.get(mine) != index
            if bind or kind == START:
                ends = [p for p in held if p != mine and p.startswith(mine) and held[p] != index]
        else:
            ends = [p for p in held if p.startswith(mine) or mine.startswith(p)]
            self.outsiders.append((mine, event, set(self.lengths)))
        rows = []
        for p in sorted(ends, key=lambda p: (len(p), p)):
            rows.append((END, -1, self.prefixes[p], event, received))
            self.facts.append((p, event, received, -1))
        if bind:
            rows.append((BIND, index, prefix, event, received))
            self.facts.append((mine, event, received, index))
            since = min(self.came_after(mine, event), default=None)
            if since is not None and self.holder(mine, since) == index:
                rows.append((END, -1, prefix, since, received))
                self.facts.append((mine, since, received, -1))
        return rows

    def came_after(self, mine: str, event: int) -> list[int]:
        """When outsiders came to what overlaps; a narrower prefix than any before is not known."""
        return [
            when
            for where, when, lengths in self.outsiders
            if when > event
            and (mine.startswith(where) or (where.startswith(mine) and len(mine) in lengths))
        ]
