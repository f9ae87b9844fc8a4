"""The owner lock: one process at a time may write a folder.

`flock` on a file inside it: the system gives the lock back when the process ends, however it ends,
so there is no stale lock to clean up. The file says who holds it (process number and command), for
the message that the others get; what it says is not what decides.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from pathlib import Path
from types import TracebackType

RETRY_SECONDS = 0.02


class LockError(RuntimeError):
    """Somebody else holds the lock; `pid` is who, as far as the file tells."""

    def __init__(self, path: Path, pid: int | None, command: str, waited_seconds: float) -> None:
        who = f"process {pid}" if pid else "another process"
        after = f" (waited {waited_seconds:g} s)" if waited_seconds else ""
        super().__init__(
            f"{path.parent} is in use by {who}{f' ({command})' if command else ''}{after}; "
            "wait for it, or stop it, and try again"
        )
        self.path, self.pid, self.command = path, pid, command


class OwnerLock:
    """The lock in file `path`; taken by `acquire` or `with`, given back by `release`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Do we hold it?"""
        return self._descriptor is not None

    def acquire(self, timeout_seconds: float = 0.0) -> None:
        """Take the lock, waiting up to `timeout_seconds`. Raises LockError, naming who has it."""
        assert self._descriptor is None, "already held"
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + timeout_seconds
            while not _taken(descriptor):
                if time.monotonic() >= deadline:
                    raise LockError(self.path, *_holder(descriptor), timeout_seconds)
                time.sleep(RETRY_SECONDS)
            os.ftruncate(descriptor, 0)
            command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])
            os.pwrite(descriptor, f"{os.getpid()} {command}\n".encode(errors="replace"), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back; without one nothing happens."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> OwnerLock:
        if not self.held:
            self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> tuple[int | None, str]:
    text = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
    pid, _, command = text.partition(" ")
    return (int(pid) if pid.isdecimal() else None), command
