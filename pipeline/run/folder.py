"""A state folder as files: whose it is, and whether it was closed whole.

STATE/owner.lock   held by the process that may write
STATE/closed       the mark of an owner that closed everything; gone while there is an owner

An owner that has synced, closed and checked everything leaves the mark behind. It says what a
question needs to know of the journal and the book, so that nobody has to open them to answer one.
It holds only for what it was written for: its seal is a keyed hash over its facts, over name, size
and times of every file of the journal and the book, and over the sources that read and write them.
After a crash, a restored backup, a touched file, other keys or another version there is no mark, or
it does not hold, and a state is opened in full, with every check and every refusal of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import pipeline
from pipeline.model.identifiers import Keys, digest
from pipeline.store.lock import OwnerLock
from pipeline.store.synced import sync_folder

OURS = ("owner.lock", "keys", "journal")  # each of them marks a folder as a state
CLOSED = "closed"
JOURNAL_LOCK = Path("journal", "lock")
# What decides whether a state can be opened, and what its tables and rules look like.
PROGRAM = ("model", "rulebook", "store")


class StateError(RuntimeError):
    """The state folder cannot be used the way it was asked to; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Closed:
    """What the mark says: by which statements the ClickHouse store was made, how many rulebooks the
    journal names, the hash of the last one in hex digits, and that of the file of permissions
    (`permissions.py`) that was put on record last.
    """

    made_by: str
    rulebooks: int
    rulebook: str
    access: str = ""


def lock_state(folder: Path, wait_seconds: float = 0.0) -> OwnerLock:
    """Become the owner of a state folder, making it if need be.

    Raises StateError, and changes nothing, where the folder holds something else.
    """
    if folder.is_socket():
        raise StateError(
            f"{folder} is a door to a state, not its folder: questions, jobs and commands go "
            "through it, and nothing else"
        )
    if folder.is_dir() and not any((folder / name).exists() for name in OURS):
        found = next(folder.iterdir(), None)
        if found is not None:
            raise StateError(
                f"{folder} is not a state folder, and not empty (there is {found.name}); "
                "name a folder of its own with --state"
            )
    os.umask(0o077)  # what an owner writes is for its user only, whichever library writes it
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    lock = OwnerLock(folder / "owner.lock")
    lock.acquire(timeout_seconds=wait_seconds)
    return lock


def clickhouse_of(folder: Path) -> str:
    """The ClickHouse store of a state folder."""
    return f"chdb:///{(folder / 'clickhouse').absolute()}"


def book_of(folder: Path) -> str:
    """The book of a state folder."""
    return f"sqlite:///{(folder / 'book.sqlite').absolute()}"


def take_mark(folder: Path) -> None:
    """Take the mark away, durably, before anything in the folder changes. For its owner."""
    with contextlib.suppress(FileNotFoundError):
        (folder / CLOSED).unlink()
        sync_folder(folder)


def leave_mark(folder: Path, keys: Keys, closed: Closed) -> None:
    """Say that everything was closed. For its owner, as the last it does.

    That the mark cannot be written, or is torn, costs the next question some time and nothing else.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        text = json.dumps({**asdict(closed), "seal": _seal(folder, keys, closed)}) + "\n"
        with os.fdopen(os.open(folder / CLOSED, flags, 0o600), "w") as file:
            file.write(text)


def read_mark(folder: Path, keys: Keys) -> Closed | None:
    """What the mark says, if there is one and it holds. For the folder's owner."""
    try:
        found = json.loads((folder / CLOSED).read_bytes())
        seal = found.pop("seal")
        closed = Closed(**found)
        expected = _seal(folder, keys, closed)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return closed if hmac.compare_digest(str(seal).encode(), expected.encode()) else None


def _seal(folder: Path, keys: Keys, closed: Closed) -> str:
    facts = json.dumps(asdict(closed), sort_keys=True)
    return digest(keys.audit, "closed state", facts, _standing(folder), _program()).hex()


def _standing(folder: Path) -> str:
    """A line for each file of the journal and the book; a change of any of them changes it."""
    files = [*(folder / "journal").rglob("*"), *folder.glob("book.sqlite*")]
    lines = []
    for path in sorted(files):
        name = path.relative_to(folder)
        found = path.lstat()
        if name != JOURNAL_LOCK:
            times = f"{found.st_mtime_ns} {found.st_ctime_ns}"
            lines.append(f"{name} {found.st_mode} {found.st_size} {times}")
    return "\n".join(lines)


def _program() -> bytes:
    """A hash of the sources in PROGRAM."""
    found = hashlib.blake2b(pipeline.__version__.encode())
    root = Path(pipeline.__file__).parent
    for path in sorted(path for part in PROGRAM for path in (root / part).glob("*.py")):
        content = path.read_bytes()
        found.update(f"\n{path.relative_to(root)} {len(content)}\n".encode() + content)
    return found.digest()
