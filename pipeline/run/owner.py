"""The owner answers: a Unix socket beside the state, so that `sql`, `job` and `explain` work
meanwhile.

One request is one line of JSON; the answer is a line of JSON (`ok`, `length`, and `code` of a
failure) followed by `length` bytes. The socket is for the operating-system user who owns the folder
(mode 0600), and who asks is whom the system says is at its other end. Questions are answered by
threads with a read-only connection each. What writes is queued for the thread that owns the
journal, which takes it between two batches (`poll`).
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socketserver
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from pipeline.run.actors import peer_actor
from pipeline.run.failures import RequestError, explain_failure

SOCKET = "owner.sock"
REQUEST_BYTES_MAX = 1 << 26  # a whole rulebook may be in it
STOP_SECONDS = (
    0.05  # within which it sees that it shall stop; half a second was a tenth of a replay
)
Request = dict[str, Any]
Answer = Callable[[Request], bytes]


class OwnerServer:
    """Serves one state folder. `ask` answers in threads, `act` runs in the owner's own."""

    def __init__(self, folder: Path, ask: Answer, act: Answer) -> None:
        self._ask, self._act = ask, act
        self._tasks: queue.Queue[tuple[Request, Future[bytes]]] = queue.Queue()
        # The path may be longer than a socket address can be; the folder's descriptor is not.
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._path = folder / SOCKET
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                line = self.rfile.readline(REQUEST_BYTES_MAX)
                if line:
                    header, body = outer._answer(line, peer_actor(self.connection))
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        self.wfile.write(json.dumps(header).encode() + b"\n" + body)

        old = os.umask(0o177)
        try:
            self._server = socketserver.ThreadingUnixStreamServer(
                f"/proc/self/fd/{self._folder}/{SOCKET}", Handler
            )
        finally:
            os.umask(old)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(STOP_SECONDS,), daemon=True
        )
        self._thread.start()

    def poll(self, timeout_seconds: float = 0.0) -> None:
        """Do what is queued, in the calling thread; wait for it up to the time-out."""
        while True:
            try:
                request, future = self._tasks.get(timeout_seconds > 0, timeout_seconds or None)
            except queue.Empty:
                return
            timeout_seconds = 0.0
            try:
                future.set_result(self._act(request))
            except BaseException as error:
                future.set_exception(error)
                if not isinstance(error, Exception):
                    raise

    def close(self) -> None:
        """Stop answering and remove the socket."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        while not self._tasks.empty():
            self._tasks.get()[1].set_exception(RequestError("the owner stops"))
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        os.close(self._folder)

    def _answer(self, line: bytes, actor: str) -> tuple[dict[str, Any], bytes]:
        try:
            request = json.loads(line) | {"actor": actor}
            if _acts(request):
                future: Future[bytes] = Future()
                self._tasks.put((request, future))
                body = future.result()
            else:
                body = self._ask(request)
            return {"ok": True, "length": len(body)}, body
        except Exception as error:
            known = explain_failure(error)
            code, message = known if known else (1, f"{type(error).__name__}: {error}")
            body = message.encode()
            return {"ok": False, "code": code, "length": len(body)}, body


def _acts(request: Request) -> bool:
    """Does it write? A job does, and so does being shown a login, which is put on record."""
    question = request.get("question")
    shown = isinstance(question, dict) and bool(question.get("with_identity"))
    return request.get("do") == "job" or shown


def ask_owner(folder: Path, request: Request) -> bytes | None:
    """The owner's answer, or None where nobody owns the folder. Raises RequestError on failure."""
    import socket

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            try:
                client.connect(f"/proc/self/fd/{descriptor}/{SOCKET}")
            except (FileNotFoundError, ConnectionRefusedError):
                return None
            client.sendall(json.dumps(request).encode() + b"\n")
            with client.makefile("rb") as answer:
                header = json.loads(answer.readline() or b"{}")
                if "length" not in header:
                    raise RequestError("the owner stopped before it answered; try again")
                body = answer.read(header["length"])
    finally:
        os.close(descriptor)
    if not header["ok"]:
        raise RequestError(body.decode(), header.get("code", 1))
    return body
