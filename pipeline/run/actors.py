"""Who asks: the operating-system user, by number and never by what the environment says.

`LOGNAME` and `USER` are anybody's to set; the user id of one's own process, and that of the process
at the other end of a Unix socket (SO_PEERCRED, unix(7)), are not. Nor are its groups: the system
keeps those that the other process had when it connected (SO_PEERGROUPS, since Linux 4.13). Where it
does not tell them, the group database does.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct
from typing import NamedTuple

CREDENTIALS = struct.Struct("3i")  # process, user, group
SO_PEERGROUPS = 59  # asm-generic/socket.h; the socket module has no name for it
GROUPS_BYTES = 1024  # as much as getsockopt takes in Python: 256 groups


class Peer(NamedTuple):
    """Who asks: a user, and all groups of the process that asks."""

    user: int
    groups: frozenset[int]

    @property
    def actor(self) -> str:
        """The user's name."""
        return actor_of(self.user)


def actor_of(user: int) -> str:
    """The name of a user, or `uid N` where the system has none."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"uid {user}"


def own_actor() -> str:
    """Who runs this process."""
    return actor_of(os.getuid())


def own_peer() -> Peer:
    """Who runs this process, as somebody who asks."""
    return Peer(os.getuid(), frozenset({os.getgid(), *os.getgroups()}))


def peer_of(connection: socket.socket) -> Peer:
    """Who runs the process at the other end of a Unix socket."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    _, user, group = CREDENTIALS.unpack(told)
    return Peer(user, frozenset({group, *_groups(connection, user, group)}))


def _groups(connection: socket.socket, user: int, group: int) -> list[int]:
    try:
        told = connection.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, GROUPS_BYTES)
    except OSError:  # an old kernel, or more groups than fit
        return known_groups(user, group)
    return list(struct.unpack(f"{len(told) // 4}I", told))


def known_groups(user: int, group: int) -> list[int]:
    """The groups of a user by the group database; none where it does not know the user."""
    try:
        return os.getgrouplist(pwd.getpwuid(user).pw_name, group)
    except KeyError:
        return []
