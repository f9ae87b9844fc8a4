"""Whose name is this, the obvious way: try every rule, or every ending."""

from __future__ import annotations

NOBODY = -1


def is_under(name: str, other: str) -> bool:
    return name == other or name.endswith("." + other)


def owner_of(host: str, partners, trackers) -> int:
    """The code of a host straight from the rules: the longest claim its owner does not exclude.

    `partners` are (hosts, exact, exclude), `trackers` hosts; codes are 0, 1, ... and -2, -3, ...
    """
    claims = []
    for number, (hosts, exact, exclude) in enumerate(partners):
        if any(is_under(host, name) for name in exclude):
            continue
        claims += [(len(name), number) for name in hosts if is_under(host, name)]
        claims += [(len(name), number) for name in exact if host == name]
    for number, hosts in enumerate(trackers):
        claims += [(len(name), -2 - number) for name in hosts if is_under(host, name)]
    return max(claims)[1] if claims else NOBODY


def lookup_hosts(entries: dict[str, tuple[int, int]], hosts: list[str]) -> list[int]:
    """Twin of the kernel: `entries` has the codes of the name itself and of names under it."""
    found = []
    for host in hosts:
        labels = host.split(".")
        code = NOBODY
        if all(labels) and len(host) <= 255:
            for first in range(len(labels)):
                ending = ".".join(labels[first:])
                if ending in entries:
                    code = entries[ending][0 if first == 0 else 1]
                    break
        found.append(code)
    return found


def find_marks(wanted: list[bool], targets: list[str], marks: list[str]) -> list[int]:
    """Twin of the kernel: the first query parameter of each wanted target that is a mark."""
    lower = [mark.lower() for mark in marks]
    found = []
    for take, target in zip(wanted, targets, strict=True):
        query = target.partition("#")[0].partition("?")[2] if take else ""
        names = [part.partition("=")[0].lower() for part in query.replace(";", "&").split("&")]
        found.append(next((lower.index(name) for name in names if name and name in lower), -1))
    return found
