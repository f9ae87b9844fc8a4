"""The mark of a state that was closed whole: it holds for what it was written for, and no longer."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time

import pytest

from pipeline.model.identifiers import Keys
from pipeline.run import folder as folders
from pipeline.run.folder import (
    CLOSED,
    Closed,
    book_of,
    clickhouse_of,
    leave_mark,
    lock_state,
    read_mark,
    take_mark,
)
from pipeline.store.lock import LockError
from tests.need import REPOSITORY

KEYS = Keys.from_seed("folder")
TICK_SECONDS = 0.02  # longer than the step in which file systems tell the time
FACTS = Closed("00ff" * 8, 2, "ab" * 16)


@pytest.fixture
def folder(tmp_path):
    """A state folder as far as the mark looks at it."""
    for name in ("journal/visits/000000000000.segment", "journal/synced", "journal/lock",
                 "journal/keys/basis-000000000000.key", "book.sqlite", "owner.lock",
                 "clickhouse/data"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


@pytest.fixture
def marked(folder):
    leave_mark(folder, KEYS, FACTS)
    assert read_mark(folder, KEYS) == FACTS
    return folder


def test_there_is_no_mark_at_first(folder):
    assert read_mark(folder, KEYS) is None


def test_a_mark_that_was_taken_is_gone(marked):
    take_mark(marked)
    assert not (marked / CLOSED).exists()
    assert read_mark(marked, KEYS) is None
    take_mark(marked)  # once more changes nothing


def test_the_mark_is_for_its_owner_only(marked):
    assert stat.S_IMODE((marked / CLOSED).stat().st_mode) == 0o600


def test_the_mark_shows_no_key(marked):
    text = (marked / CLOSED).read_text()
    for name in ("identity", "address", "visit", "click", "link", "audit", "seal"):
        assert getattr(KEYS, name).hex() not in text


@pytest.mark.parametrize(
    "name",
    ["journal/visits/000000000000.segment", "journal/synced", "book.sqlite",
     "journal/keys/basis-000000000000.key"],
)  # fmt: skip
def test_a_changed_file_ends_it(marked, name):
    """Be it longer, gone, replaced by the same bytes, or written in place at the old time."""
    path = marked / name
    content, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    changes = [
        lambda: path.write_bytes(content + b"!"),
        path.unlink,
        lambda: path.write_bytes(content[:-1] + b"!"),
        lambda: (path.write_bytes(content[::-1]), os.utime(path, ns=times)),
        lambda: path.chmod(0o640),
    ]
    for change in changes:
        path.write_bytes(content)
        leave_mark(marked, KEYS, FACTS)
        assert read_mark(marked, KEYS) == FACTS
        time.sleep(TICK_SECONDS)
        change()
        assert read_mark(marked, KEYS) is None


@pytest.mark.parametrize(
    "name", ["journal/cuts/000000000000.segment", "journal/visits/000000000001.segment",
             "book.sqlite-wal"],
)  # fmt: skip
def test_a_new_file_ends_it(marked, name):
    (marked / name).parent.mkdir(exist_ok=True)
    (marked / name).write_text("new")
    assert read_mark(marked, KEYS) is None


def test_locks_and_the_store_do_not_end_it(marked):
    """Locks say who looks; the store is asked itself."""
    for name in ("journal/lock", "owner.lock", "clickhouse/data", "owner.sock"):
        (marked / name).write_text("else")
    assert read_mark(marked, KEYS) == FACTS


def test_other_keys_do_not_open_it(marked):
    assert read_mark(marked, Keys.from_seed("other")) is None


def test_another_version_does_not_trust_it(marked, monkeypatch):
    monkeypatch.setattr(folders, "PROGRAM", ("model", "store"))
    assert read_mark(marked, KEYS) is None


def test_the_program_is_what_is_read_and_how(monkeypatch):
    seen = folders._program()
    assert seen == folders._program()
    monkeypatch.setattr(folders.pipeline, "__version__", "another")
    assert seen != folders._program()


@pytest.mark.parametrize("field", ["made_by", "rulebooks", "rulebook"])
def test_facts_that_were_changed_do_not_hold(marked, field):
    found = json.loads((marked / CLOSED).read_text())
    found[field] = 1 if field == "rulebooks" else "cd" * 16
    (marked / CLOSED).write_text(json.dumps(found))
    assert read_mark(marked, KEYS) is None


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"seal": "00"}', '{"seal": 7, "made_by": 1, "rulebooks": 2}',
     '{"seal": null, "made_by": "", "rulebooks": 0, "rulebook": "", "more": 1}',
     '{"seal": null, "made_by": "", "rulebooks": 0, "rulebook": ""}', "\udcff"],
)  # fmt: skip
def test_nonsense_is_no_mark(marked, text):
    (marked / CLOSED).write_bytes(text.encode(errors="surrogateescape"))
    assert read_mark(marked, KEYS) is None


def test_a_torn_mark_is_no_mark(marked):
    whole = (marked / CLOSED).read_bytes().rstrip()
    for end in range(len(whole)):
        (marked / CLOSED).write_bytes(whole[:end])
        assert read_mark(marked, KEYS) is None


def test_a_mark_that_cannot_be_written_is_no_failure(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "file"
    (folder / CLOSED).symlink_to(elsewhere)
    leave_mark(folder, KEYS, FACTS)
    assert not elsewhere.exists()
    leave_mark(folder / "missing", KEYS, FACTS)
    assert not (folder / "missing").exists()


def test_a_state_has_one_owner(tmp_path):
    old = os.umask(0o022)
    try:
        with lock_state(tmp_path / "state"):
            assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
            with pytest.raises(LockError):
                lock_state(tmp_path / "state")
    finally:
        os.umask(old)


def test_where_the_stores_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert clickhouse_of(folders.Path("s")) == f"chdb:///{tmp_path}/s/clickhouse"
    assert book_of(folders.Path("s")) == f"sqlite:///{tmp_path}/s/book.sqlite"


def test_the_short_way_loads_neither_engine_nor_book():
    """What it is for: a question starts in half the time."""
    code = "import sys, pipeline.run.client; print('\\n'.join(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True
    ).stdout.split()
    for heavy in ("numba", "sqlalchemy", "pyarrow", "chdb", "cryptography", "pipeline.engine",
                  "pipeline.model.batches", "pipeline.store.journal"):  # fmt: skip
        assert heavy not in loaded
