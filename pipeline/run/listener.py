"""A Unix socket that requests come in by, and the other end of one.

One request is one line of JSON; the answer is a line of JSON (`ok`, `length`, and `code` of a
failure) followed by `length` bytes. Who asks is whom the system says is at the other end.

An owner has a socket in its folder, for the folder's user (mode 0600), and may have a **door**:
one elsewhere, for a group (mode 0660). A socket that a crash left is replaced; anything else that
stands there is not, nor is a socket at which somebody answers.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.run.actors import Peer, peer_of
from pipeline.run.failures import RequestError
from pipeline.run.folder import StateError
from pipeline.run.permissions import Door

STOP_SECONDS = (
    0.05  # within which it sees that it shall stop; half a second was a tenth of a replay
)
READ_SECONDS = 30.0  # within which a request has to arrive
REQUEST_BYTES_MAX = 1 << 26  # a whole rulebook may be in it
AT_ONCE = 16  # connections of one user that are answered at a time
Answer = Callable[[bytes, Peer], tuple[dict[str, Any], bytes]]


class OwnerStopped(RequestError):
    """The owner took a request and was gone before it answered: it may have been done, or not."""


class Listener:
    """Listens at `path`, and answers each connection in a thread of its own."""

    def __init__(self, path: Path, answer: Answer, group: str = "") -> None:
        """For the user alone, or also for a group. Raises OSError and StateError."""
        self._path = path
        # The path may be longer than a socket address can be; the folder's descriptor is not.
        self._folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._server = _bound(f"/proc/self/fd/{self._folder}/{path.name}", answer)
            if group:
                self._let_in(group)
        except BaseException:
            os.close(self._folder)
            raise
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(STOP_SECONDS,), daemon=True
        )
        self._thread.start()

    def _let_in(self, group: str) -> None:
        try:
            os.chown(self._path, -1, grp.getgrnam(group).gr_gid, follow_symlinks=False)
            self._path.chmod(0o660)
        except (OSError, KeyError) as error:
            self._server.server_close()
            self._path.unlink(missing_ok=True)
            why = error.strerror if isinstance(error, OSError) else "there is no such group"
            raise StateError(
                f"{self._path}: cannot be given to the group {group} ({why}); whoever runs the "
                "owner has to be in that group"
            ) from error

    def stop(self) -> None:
        """Take no more connections."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def close(self) -> None:
        """Remove the socket; for a listener that was stopped."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._folder)


def door_of(door: Door, answer: Answer) -> Listener:
    """The door, opened. Raises StateError where that cannot be."""
    path = door.socket
    try:
        there = path.lstat()
    except FileNotFoundError:
        there = None
    except OSError as error:
        raise StateError(f"the door {path}: {error.strerror}") from error
    if there is not None and (not path.is_socket() or path.is_symlink()):
        raise StateError(f"the door {path}: something else stands there, and is left alone")
    if there is not None and _somebody_answers(path):
        raise StateError(f"the door {path}: another owner answers there")
    try:
        return Listener(path, answer, door.group)
    except OSError as error:
        raise StateError(f"the door {path}: {error.strerror or error}") from error


class _Places:
    """How many connections each user has open; a guest cannot fill the owner's memory alone."""

    def __init__(self) -> None:
        self._lock, self._taken = threading.Lock(), Counter[int]()

    @contextlib.contextmanager
    def one(self, user: int) -> Iterator[bool]:
        """Take a place while it lasts; was there one?"""
        with self._lock:
            free = self._taken[user] < AT_ONCE
            self._taken[user] += free
        try:
            yield free
        finally:
            with self._lock:
                self._taken[user] -= free
                self._taken += Counter()  # forgets who has none


def _bound(address: str, answer: Answer) -> socketserver.ThreadingUnixStreamServer:
    places = _Places()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            peer = peer_of(self.connection)
            with places.one(peer.user) as free:
                if not free:
                    said = f"{peer.actor} has {AT_ONCE} questions open here; wait for an answer"
                    self._tell({"ok": False, "code": 1, "length": len(said)}, said.encode())
                    return
                self._answer(peer)

        def _answer(self, peer: Peer) -> None:
            self.connection.settimeout(READ_SECONDS)
            try:
                line = self.rfile.readline(REQUEST_BYTES_MAX)
            except OSError:  # nothing came, or the other end is gone
                return
            self.connection.settimeout(None)
            if line:
                self._tell(*answer(line, peer))

        def _tell(self, header: dict[str, Any], body: bytes) -> None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.wfile.write(json.dumps(header).encode() + b"\n" + body)

    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)
    old = os.umask(0o177)
    try:
        server = socketserver.ThreadingUnixStreamServer(address, Handler)
    finally:
        os.umask(old)
    server.daemon_threads = True
    return server


def _somebody_answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            _connect(client, path)
        except OSError:
            return False
    return True


def _connect(client: socket.socket, path: Path) -> None:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        client.connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def ask_socket(path: Path, request: dict[str, Any]) -> bytes | None:
    """The answer from the other end; None where nobody listens. Raises RequestError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            _connect(client, path)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except PermissionError as error:
            said = f"{path}: you may not come in here; the group of this socket may"
            raise StateError(said) from error
        try:
            client.sendall(json.dumps(request).encode() + b"\n")
            with client.makefile("rb") as answer:
                header = json.loads(answer.readline() or b"{}")
                if "length" not in header:
                    raise OwnerStopped("the owner stopped before it answered; try again")
                body = answer.read(header["length"])
        except (BrokenPipeError, ConnectionResetError):
            raise OwnerStopped("the owner stopped before it answered; try again") from None
    if not header["ok"]:
        raise RequestError(body.decode(), header.get("code", 1))
    return body
