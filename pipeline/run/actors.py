"""Who asks: the operating-system user, by number and never by what the environment says.

`LOGNAME` and `USER` are anybody's to set; the user id of one's own process, and that of the process
at the other end of a Unix socket (SO_PEERCRED, unix(7)), are not.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct

CREDENTIALS = struct.Struct("3i")  # process, user, group


def actor_of(user: int) -> str:
    """The name of a user, or `uid N` where the system has none."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"uid {user}"


def own_actor() -> str:
    """Who runs this process."""
    return actor_of(os.getuid())


def peer_actor(connection: socket.socket) -> str:
    """Who runs the process at the other end of a Unix socket."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return actor_of(CREDENTIALS.unpack(told)[1])
