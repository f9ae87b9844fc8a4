"""The keys of a state folder: one file per purpose, for their owner's eyes only.

Live keys are files of 32 random bytes, `STATE/keys/PURPOSE.key`. They must be regular files of mode
0600 in a folder of mode 0700 that belong to the user who runs us, or nothing starts: a key that
others could read keeps no secret, and going on would hide that. All that is wrong is said at once.

A case or a demo has test keys: the folder holds one file, `test`, with the seed they are derived
from. That file is the mark by which `mirrorpoint run` knows, and refuses, a state that is not for
real.
"""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import fields
from pathlib import Path

from pipeline.model.identifiers import Keys
from pipeline.store.synced import sync_folder

KEY_BYTES = 32
TEST_MARK = "test"
PURPOSES = tuple(f.name for f in fields(Keys) if f.name != "test")


class KeyFileError(RuntimeError):
    """The keys cannot be used; `problems` has a line for each reason, each saying what to do."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def keys_folder(state: Path) -> Path:
    """Where the keys of a state folder are."""
    return state / "keys"


def have_keys(state: Path) -> bool:
    """Were keys, of either sort, ever made for this state?"""
    return keys_folder(state).exists()


def create_live_keys(state: Path) -> Keys:
    """Make random keys. Raises KeyFileError where the state has keys already."""
    keys = Keys(**{purpose: os.urandom(KEY_BYTES) for purpose in PURPOSES}, test=False)
    _create(state, {f"{purpose}.key": getattr(keys, purpose) for purpose in PURPOSES})
    return keys


def create_test_keys(state: Path, seed: str) -> Keys:
    """Keep the seed of test keys, which marks the state as a test. Raises KeyFileError."""
    if not seed:
        raise ValueError("test keys need a seed")
    _create(state, {TEST_MARK: seed.encode()})
    return Keys.from_seed(seed)


def kept_seed(state: Path) -> str:
    """The seed that a state's test keys come from, empty for live keys. Raises KeyFileError."""
    if not load_keys(state, allow_test=True).test:
        return ""
    return _read(keys_folder(state) / TEST_MARK).decode("utf-8", "replace")


def load_keys(state: Path, allow_test: bool) -> Keys:
    """The keys of a state. Raises KeyFileError with everything that is wrong with them.

    Without `allow_test` a state that is marked as a test is refused.
    """
    folder = keys_folder(state)
    problems = _folder_problems(folder)
    if problems:
        raise KeyFileError(problems)
    names = sorted(entry.name for entry in folder.iterdir())
    marked = TEST_MARK in names
    expected = [TEST_MARK] if marked else [f"{purpose}.key" for purpose in PURPOSES]
    problems = [f"{folder / name}: does not belong here" for name in names if name not in expected]
    found: dict[str, bytes] = {}
    for name in expected:
        try:
            found[name] = _read(folder / name)
        except KeyFileError as error:
            problems += error.problems
    problems += _content_problems(folder, {} if marked else found)
    if marked and found.get(TEST_MARK) == b"":
        problems.append(f"{folder / TEST_MARK}: has lost its seed")
    if marked and not allow_test:
        problems.append(
            f"{folder / TEST_MARK}: this state has test keys, which anybody can derive; "
            "live work needs a state of its own"
        )
    if problems:
        raise KeyFileError(problems)
    if marked:
        return Keys.from_seed(found[TEST_MARK].decode("utf-8", "replace"))
    return Keys(**{purpose: found[f"{purpose}.key"] for purpose in PURPOSES}, test=False)


def _create(state: Path, files: dict[str, bytes]) -> None:
    """Make the folder with all files, or leave it as it was."""
    folder = keys_folder(state)
    if folder.exists():
        raise KeyFileError([f"{folder}: there are keys already, and they are not replaced"])
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = folder.with_name(f".keys-{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    for name, content in files.items():
        descriptor = os.open(fresh / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
            os.write(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(fresh)
    try:
        fresh.rename(folder)
    except OSError:  # somebody else was faster, and theirs count
        shutil.rmtree(fresh)
        raise KeyFileError(
            [f"{folder}: there are keys already, and they are not replaced"]
        ) from None
    sync_folder(state)


def _folder_problems(folder: Path) -> list[str]:
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return [f"{folder}: there are no keys; a new state makes its own"]
    if not stat.S_ISDIR(found.st_mode):
        return [f"{folder}: not a folder"]
    return _access_problems(folder, found, 0o700)


def _access_problems(path: Path, found: os.stat_result, mode: int) -> list[str]:
    problems = []
    if found.st_uid != os.geteuid():
        problems.append(
            f"{path}: belongs to user {found.st_uid}, not to {os.geteuid()} who runs this; chown it"
        )
    if stat.S_IMODE(found.st_mode) & ~mode:
        problems.append(
            f"{path}: mode {stat.S_IMODE(found.st_mode):04o} lets others in; "
            f"chmod {mode:04o} it, and replace keys that others may have read"
        )
    return problems


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeyFileError([f"{path}: missing; take it from your backup"]) from None
    except OSError as error:
        raise KeyFileError([f"{path}: {error.strerror}; it must be a plain file"]) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise KeyFileError([f"{path}: must be a plain file"])
        problems = _access_problems(path, found, 0o600)
        if problems:
            raise KeyFileError(problems)
        return os.read(descriptor, 1 << 16)
    finally:
        os.close(descriptor)


def _content_problems(folder: Path, found: dict[str, bytes]) -> list[str]:
    problems = [
        f"{folder / name}: {len(content)} bytes, a key has {KEY_BYTES}"
        for name, content in found.items()
        if len(content) != KEY_BYTES
    ]
    first: dict[bytes, str] = {}
    for name, content in found.items():
        if content and content in first:
            problems.append(
                f"{folder / name}: the same as {first[content]}; each purpose has its own"
            )
        first.setdefault(content, name)
        if content == bytes(KEY_BYTES):
            problems.append(f"{folder / name}: only zero bytes, not a key")
    return problems
