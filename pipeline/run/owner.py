"""The owner answers: a Unix socket beside the state, so that `sql`, `job` and `explain` work
meanwhile; and, for people who do not own the folder, a door (`listener.py`).

Every request is let in or denied first (`admission.py`), by whoever asks and as the file of
permissions says then. Questions are answered by threads with a read-only connection each. What
writes is queued for the thread that owns the journal, which takes it between two batches (`poll`);
so is what has to be put on record of somebody who was denied, and only then are they told.
"""

from __future__ import annotations

import json
import queue
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from pipeline.run.actors import Peer
from pipeline.run.admission import denial
from pipeline.run.failures import RequestError, explain_failure
from pipeline.run.listener import Listener, ask_socket, door_of
from pipeline.run.permissions import Denied, Door

SOCKET = "owner.sock"
Request = dict[str, Any]
Answer = Callable[[Request], bytes]
Admit = Callable[[Request, Peer], Request]


class OwnerServer:
    """Serves one state folder. `admit` lets a request in, or raises; `ask` answers in threads,
    `act` runs in the owner's own.
    """

    def __init__(self, folder: Path, ask: Answer, act: Answer, admit: Admit) -> None:
        self._ask, self._act, self._admit = ask, act, admit
        self._tasks: queue.Queue[tuple[Request, Future[bytes]]] = queue.Queue()
        self._listener = Listener(folder / SOCKET, self._answer)
        self._door: tuple[Door, Listener] | None = None

    def use_door(self, door: Door | None) -> None:
        """Open this door, or none, in place of the one that is open. Raises StateError."""
        if self._door is not None and self._door[0] == door:
            return
        if self._door is not None:
            self._door[1].stop()
            self._door[1].close()
            self._door = None
        if door is not None:
            self._door = door, door_of(door, self._answer)

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
        """Stop answering and remove the sockets."""
        listeners = [self._listener, *([self._door[1]] if self._door is not None else [])]
        for listener in listeners:
            listener.stop()
        while not self._tasks.empty():
            self._tasks.get()[1].set_exception(RequestError("the owner stops"))
        for listener in listeners:
            listener.close()

    def _answer(self, line: bytes, peer: Peer) -> tuple[dict[str, Any], bytes]:
        try:
            body = self._answered(json.loads(line), peer)
            return {"ok": True, "length": len(body)}, body
        except Exception as error:
            known = explain_failure(error)
            code, message = known if known else (1, f"{type(error).__name__}: {error}")
            body = message.encode()
            return {"ok": False, "code": code, "length": len(body)}, body

    def _answered(self, asked: Any, peer: Peer) -> bytes:
        if not isinstance(asked, dict):
            raise RequestError("a request is a JSON object", 2)
        try:
            request = self._admit(asked, peer)
        except Denied as denied:
            self._in_turn(denial(denied))
            raise
        return self._in_turn(request) if _acts(request) else self._ask(request)

    def _in_turn(self, request: Request) -> bytes:
        """The answer of the owner's own thread."""
        future: Future[bytes] = Future()
        self._tasks.put((request, future))
        return future.result()


def _acts(request: Request) -> bool:
    """Does it write, or ask the book? A job does, and so does being shown a login, which is put on
    record.
    """
    question = request.get("question")
    shown = isinstance(question, dict) and bool(question.get("with_identity"))
    return request.get("do") in ("job", "book") or shown


def ask_owner(folder: Path, request: Request) -> bytes | None:
    """The owner's answer, or None where nobody owns the folder. Raises RequestError on failure."""
    return ask_socket(folder / SOCKET, request)
