"""Killed at random moments under load: what was acknowledged is there, and nothing but it.

A process posts orders, three in a transaction, and says the number of each transaction once the
book has answered. It is killed without a word; whatever it said is stored then, with all three
orders, and beyond that at most the one transaction whose answer never came.
"""

from __future__ import annotations

import contextlib
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from pipeline.model.words import Result
from pipeline.store.book import Book
from pipeline.store.book_schema import heads, requests
from tests.ledger.stories import KEYS, booking, order_batch, rulebook, target, target_batch
from tests.need import REPOSITORY, need
from tests.postgresql import Server, a_server, never_root

pytestmark = pytest.mark.slow  # processes that are killed

KILLED, TOGETHER, MEMBERS = 20, 3, 5
LOAD = """
import sys
from itertools import count
from pipeline.model.words import Result
from pipeline.store.book import Book
from tests.ledger.stories import KEYS, booking, rulebook
from tests.store.test_book_killed import batch
book = Book(sys.argv[1], KEYS, rulebook())
print("ready", flush=True)
for number in count(int(sys.argv[2])):
    results = book.post_commands(batch(number), **booking(2)).tolist()
    assert set(results) in ({Result.OK}, {Result.EXISTS}), results
    print(number, flush=True)
    if number == int(sys.argv[3]):
        break
"""


def batch(number: int):  # type: ignore[no-untyped-def]
    """The orders of a transaction."""
    numbers = range(number * TOGETHER, (number + 1) * TOGETHER)
    return order_batch([(f"o{n}", f"m{n % MEMBERS}", n % 3 + 1) for n in numbers])


def funded(url: str) -> None:
    """A book whose members have more than they will ever spend."""
    book = Book(url, KEYS, rulebook())
    parts = [target(f"c{n}", 10**6, "available", member=f"m{n}") for n in range(MEMBERS)]
    book.post_targets(target_batch(parts), **booking(1))
    book.close()


def words(url: str, first: int, last: int) -> list[str]:
    return [sys.executable, "-c", LOAD, url, str(first), str(last)]


def acknowledged_until_killed(url: str, first: int, answers: int, after_s: float) -> int:
    """The last transaction that was answered, before it was killed some time after so many."""
    with subprocess.Popen(
        words(url, first, -1), stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as child:
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        said = [child.stdout.readline() for _ in range(answers)]
        time.sleep(after_s)
        child.kill()
        said += child.stdout
        child.wait(60)
    assert child.returncode == -signal.SIGKILL
    heard = [int(line) for line in said if line.endswith("\n")]
    assert heard == list(range(first, first + len(heard)))
    return first + len(heard) - 1


def stored(book: Book) -> set[str]:
    """References of the orders that were accepted."""
    with book._read() as connection:
        found = connection.execute(select(requests.c.ref, requests.c.result)).all()
    assert {result for _, result in found} <= {Result.OK}
    return {ref for ref, _ in found}


def newest_link(book: Book) -> bytes:
    """The end of the hash chain."""
    with book._read() as connection:
        return bytes(connection.execute(select(heads.c.link)).scalar_one())


def refs(count: int) -> set[str]:
    """References of the first transactions' orders."""
    return {f"o{n}" for n in range(count * TOGETHER)}


def test_what_was_acknowledged_is_stored_and_nothing_else(url: str) -> None:
    funded(url)
    chance, following = random.Random(KILLED), 0
    for _ in range(KILLED):
        moment = chance.randint(0, 5), chance.uniform(0.0, 0.03)
        last = acknowledged_until_killed(url, following, *moment)
        book = Book(url, KEYS, rulebook())
        found = stored(book)
        assert found in (refs(last + 1), refs(last + 2)), "more than the one without an answer"
        assert book.audit() == []
        book.close()
        following = last + 1
    subprocess.run(words(url, following, following), check=True, cwd=REPOSITORY, timeout=60)
    undisturbed = Book("sqlite://", KEYS, rulebook())
    parts = [target(f"c{n}", 10**6, "available", member=f"m{n}") for n in range(MEMBERS)]
    undisturbed.post_targets(target_batch(parts), **booking(1))
    for number in range(following + 1):
        undisturbed.post_commands(batch(number), **booking(2))
    book = Book(url, KEYS, rulebook())
    assert book.ledger_hash() == undisturbed.ledger_hash()
    assert newest_link(book) == newest_link(undisturbed), "the same entries in the same order"
    book.close()


def test_the_disk_has_it_before_anybody_is_told(tmp_path: Path) -> None:
    """By the system's calls: behind the last write to the log comes a sync, then the answer."""
    strace = need("strace")
    url, calls = f"sqlite:///{tmp_path / 'book.sqlite'}", tmp_path / "calls"
    funded(url)
    watched = "trace=write,pwrite64,fsync,fdatasync"
    traced = [strace, "-f", "-y", "-s", "16", "-e", watched, "-o", str(calls)]
    subprocess.run(
        [*traced, *words(url, 0, 9)],
        check=True,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        timeout=120,
    )
    synced, answers = True, 0
    for line in calls.read_text().splitlines():
        if re.search(r" pwrite64\(\d+<[^>]*book\.sqlite-wal>", line):
            synced, written = False, True
        elif re.search(r" f(data)?sync\(\d+<[^>]*book\.sqlite-wal>", line):
            synced = True
        elif re.search(r' write\(1<[^>]*>, "\d+(\\n)?"', line):
            assert synced, "answered before it was on the disk"
            assert written, "a transaction writes to the log"
            answers, written = answers + 1, False
    assert answers == 10


def test_a_servers_disk_has_it_before_the_book_is_told(tmp_path: Path) -> None:
    """By the calls of all its processes: behind the last write to its log comes a sync, then the
    answer that a transaction is committed. What writes the log now and then is kept from it."""
    with a_server() as server:
        calls = server.folder / "calls"  # which `postgres` may write
        settings = {"wal_writer_delay": "10s", "bgwriter_delay": "10s", "autovacuum": "off"}
        with tracing(server, calls, **settings):
            url = server.new_database()
            funded(url)
            begun = len(calls.read_text().splitlines())
            subprocess.run(
                words(url, 0, 9), check=True, cwd=REPOSITORY, stdout=subprocess.PIPE, timeout=120
            )
            lines = whole_calls(calls.read_text().splitlines()[begun:])
    synced, written, answers = True, False, 0
    for line in lines:
        if re.search(r" (pwrite64|pwritev|pwritev2)\(\d+<[^>]*/pg_wal/", line):
            synced, written = False, True
        elif re.search(r" f(data)?sync\(\d+<[^>]*/pg_wal/", line):
            synced = True
        elif re.search(r' sendto\(\d+<.*"C\\0\\0\\0\\vCOMMIT', line):
            assert synced, "answered before it was on the disk"
            answers, written = answers + written, False
    assert answers == 10, "each transaction writes to the log, and opening a book does not"


@contextlib.contextmanager
def tracing(server: Server, calls: Path, **settings: str) -> Iterator[None]:
    """The server, started by strace, which needs no right to look at others then."""
    watched = "trace=pwrite64,pwritev,pwritev2,fsync,fdatasync,sendto"
    traced = [need("strace"), "-f", "-y", "-s", "16", "-e", watched, "-o", calls]
    command = never_root(*traced, *server.command(wal_sync_method="fdatasync", **settings))
    with subprocess.Popen(command, cwd="/", stderr=subprocess.DEVNULL) as started:
        try:
            server.wait()
            yield
        finally:
            server.stop()
            started.wait(60)


def whole_calls(lines: list[str]) -> list[str]:
    """Calls at their ends; one that another process interrupted is put together."""
    begun: dict[str, str] = {}
    whole = []
    for line in lines:
        pid, _, call = line.partition(" ")
        if call.endswith("<unfinished ...>"):
            begun[pid] = call.removesuffix("<unfinished ...>")
            continue
        resumed = re.match(r" *<\.\.\. \w+ resumed>", call)
        whole.append(f"{pid} {begun.pop(pid, '') + call[resumed.end() :] if resumed else call}")
    return whole
