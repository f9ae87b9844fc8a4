"""Killed anywhere, the journal keeps a prefix with all that was promised, and goes on from it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.model.batches import STREAMS
from pipeline.model.columns import columns_of, concat
from pipeline.store import segment as segment_module
from pipeline.store.journal import Journal
from tests.need import REPOSITORY
from tests.store.making import KEYS, same_rows
from tests.store.write_rows import ROWS, SEGMENT_ROWS, write

pytestmark = pytest.mark.slow  # processes that are killed

POINTS = (
    "journal.before_write",
    "journal.half_frame",
    "journal.before_fsync",
    "journal.after_fsync",
    "journal.before_seal",
    "journal.after_seal",
)


def run(folder: Path, crash: str) -> tuple[int, dict[str, int]]:
    """Exit code of a writing process, and the last position it was promised."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.store.write_rows", str(folder)],
        env=os.environ | {"MIRRORPOINT_CRASH": crash, "PYTHONPATH": str(REPOSITORY)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else dict.fromkeys(STREAMS, 0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[str, dict[str, int]]:
    """The hash of a run that was left alone, and how often it passed each crash point."""
    folder = tmp_path_factory.mktemp("undisturbed")
    code, promised = run(folder / "j", f"count:{folder / 'passes'}")
    assert code == 0
    assert promised == {name: 120 if name in ROWS else 0 for name in STREAMS}
    with Journal(folder / "j", KEYS, writable=False) as reader:
        assert reader.verify() == []
        return reader.hash(), json.loads((folder / "passes").read_text())


def check_after(folder: Path, promised: dict[str, int]) -> None:
    """Every stream is a prefix of what was written, not shorter than what was promised."""
    with Journal(folder, KEYS) as journal:
        assert journal.verify() == []
        for stream, batch in ROWS.items():
            count = journal.rows(stream)
            assert promised[stream] <= count <= 120
            found = concat([batch.slice(0, 0), *journal.read(stream, unseal=True)])
            names = tuple(c.name for c in columns_of(STREAMS[stream]) if not c.local)
            assert same_rows(found, batch.slice(0, count), names)


def go_on(folder: Path, expected: str, monkeypatch) -> None:
    monkeypatch.setattr(segment_module, "SEGMENT_ROWS", SEGMENT_ROWS)
    write(folder)
    with Journal(folder, KEYS, writable=False) as reader:
        assert reader.hash() == expected
        assert reader.verify() == []


@pytest.mark.parametrize("nth", ["first", "middle", "last"])
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_crash_point(tmp_path, undisturbed, monkeypatch, point, nth):
    expected, passes = undisturbed
    number = {"first": 1, "middle": passes[point] // 2 + 1, "last": passes[point]}[nth]
    code, promised = run(tmp_path / "j", f"{point}:{number}")
    assert code == -signal.SIGKILL
    check_after(tmp_path / "j", promised)
    go_on(tmp_path / "j", expected, monkeypatch)


@pytest.mark.parametrize("seed", range(4))
def test_killed_again_and_again(tmp_path, undisturbed, monkeypatch, seed):
    """Three crashes in a row, each in the run that goes on from the one before."""
    expected, passes = undisturbed
    drawn = random.Random(seed)
    for _ in range(3):
        step = drawn.randint(1, sum(passes.values()) // 2)
        code, promised = run(tmp_path / "j", f"step:{step}")
        assert code in (0, -signal.SIGKILL)
        check_after(tmp_path / "j", promised)
    go_on(tmp_path / "j", expected, monkeypatch)


def test_the_points_leave_what_they_say(tmp_path):
    """Half a frame is half a frame, and before the first write there is no row."""
    assert run(tmp_path / "a", "journal.before_write")[0] == -signal.SIGKILL
    assert (tmp_path / "a" / "bindings" / "000000000000.segment").stat().st_size == 0
    assert run(tmp_path / "b", "journal.half_frame:2")[0] == -signal.SIGKILL
    with Journal(tmp_path / "b", KEYS, writable=False) as reader:
        assert reader.position() == dict.fromkeys(STREAMS, 0)
    assert (tmp_path / "b" / "bindings" / "000000000000.segment").stat().st_size > 1000
    assert run(tmp_path / "c", "journal.before_fsync")[0] == -signal.SIGKILL
    with Journal(tmp_path / "c", KEYS, writable=False) as reader:
        assert reader.rows("bindings") == 8
        assert reader.rows("visits") == 0
    assert run(tmp_path / "d", "journal.before_seal")[0] == -signal.SIGKILL
    with Journal(tmp_path / "d", KEYS, writable=False) as reader:
        assert [s.sealed for s in reader.segments("bindings")] == [False]
    assert run(tmp_path / "e", "journal.after_seal")[0] == -signal.SIGKILL
    with Journal(tmp_path / "e", KEYS, writable=False) as reader:
        assert [s.sealed for s in reader.segments("bindings")] == [True]
