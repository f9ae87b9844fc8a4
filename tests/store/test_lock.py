from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from pipeline.store.lock import LockError, OwnerLock

HOLD = """
import sys, time
from pathlib import Path
from pipeline.store.lock import OwnerLock
OwnerLock(Path(sys.argv[2])).acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "owner.lock"


@pytest.fixture
def holder(path):
    """Another process that holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, "run", str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_held_and_given_back(path):
    lock = OwnerLock(path)
    assert not lock.held
    lock.acquire()
    assert lock.held
    assert path.read_text().split()[0] == str(os.getpid())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    lock.release()
    lock.release()
    assert not lock.held
    assert path.read_text() == ""
    with OwnerLock(path) as second:
        assert second.held
    assert not second.held


def test_a_second_owner_in_the_same_process_is_refused(path):
    with OwnerLock(path), pytest.raises(LockError) as caught:
        OwnerLock(path).acquire()
    assert caught.value.pid == os.getpid()


def test_the_refusal_names_the_holder(path, holder):
    with pytest.raises(LockError) as caught:
        OwnerLock(path).acquire()
    assert caught.value.pid == holder.pid
    assert caught.value.command == "-c run"
    assert f"process {holder.pid} (-c run)" in str(caught.value)
    assert str(path.parent) in str(caught.value)


def test_a_killed_holder_holds_nothing(path, holder):
    holder.kill()
    holder.wait()
    assert path.read_text() != ""
    with OwnerLock(path) as lock:
        assert lock.held


def test_waiting_ends_after_the_timeout(path):
    with OwnerLock(path):
        begun = time.monotonic()
        with pytest.raises(LockError, match=r"waited 0\.2 s"):
            OwnerLock(path).acquire(timeout_seconds=0.2)
        assert time.monotonic() - begun >= 0.2


def test_waiting_ends_with_the_lock(path):
    first, second = OwnerLock(path), OwnerLock(path)
    first.acquire()
    timer = threading.Timer(0.1, first.release)
    timer.start()
    second.acquire(timeout_seconds=20)
    timer.join()
    assert second.held
    assert not first.held
    second.release()


def test_a_holder_that_does_not_say_who_it_is(path):
    lock = OwnerLock(path)
    lock.acquire()
    path.write_text("nonsense")
    with pytest.raises(LockError, match="another process") as caught:
        OwnerLock(path).acquire()
    assert caught.value.pid is None
    lock.release()


def test_a_refusal_leaves_no_descriptor_open(path):
    with OwnerLock(path):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with pytest.raises(LockError):
                OwnerLock(path).acquire()
        assert len(os.listdir("/proc/self/fd")) == before


def test_children_do_not_inherit_it(path):
    with OwnerLock(path):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with OwnerLock(path) as lock:
            assert lock.held
    finally:
        child.kill()
        child.wait()
