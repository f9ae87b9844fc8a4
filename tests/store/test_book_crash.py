"""Killed between and after: the same day sent again ends as if nothing had been.

The book's process dies by SIGKILL at each of its crash points, at different passes. Whoever sent
the targets starts over from the first one, as accrual does with an open cut. On either database the
end is the one of an undisturbed day in SQLite.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.store.book import Book
from tests.ledger.stories import KEYS, rulebook
from tests.postgresql import serving

pytestmark = pytest.mark.slow  # processes that are killed

DAY = """
import sys
from pipeline.store import book as book_module
from tests.ledger.stories import KEYS, booking, order_batch, rulebook, target, target_batch
book_module.TRANSACTION_ROWS = 16
book = book_module.Book(sys.argv[1], KEYS, rulebook())
for cut in (1, 2, 3):
    state = "pending" if cut == 1 else "available"
    targets = [
        target(f"c{n}", 10 + n // cut, state, fold=cut, member=f"m{n % 5}") for n in range(40)
    ]
    book.post_targets(target_batch(targets), **booking(cut))
    orders = order_batch([(f"o{cut}.{n}", f"m{n % 5}", 25) for n in range(20)])
    book.post_commands(orders, **booking(cut))
"""
PASSES = 3 * (3 + 2)  # transactions of a day: three of targets and two of orders, three times


def run_day(url: str, crash: str = "") -> int:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MIRRORPOINT_")}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    if crash:
        environment["MIRRORPOINT_CRASH"] = crash
    return subprocess.run([sys.executable, "-c", DAY, url], env=environment, check=False).returncode


def contents(url: str) -> tuple:
    book = Book(url, KEYS, rulebook())
    try:
        entries = book.entries(0)
        ids = [bytes(value) for value in entries.entry_id]
        assert book.audit() == []
        return book.ledger_hash(), ids, entries.amount.tolist(), book.undelivered()
    finally:
        book.close()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    url = f"sqlite:///{tmp_path_factory.mktemp('undisturbed') / 'book.sqlite'}"
    assert run_day(url) == 0
    return contents(url)


@pytest.mark.parametrize("point", ["book.before_commit", "book.after_commit"])
@pytest.mark.parametrize("nth", [1, 4, PASSES])
def test_a_killed_book_goes_on(url: str, undisturbed: tuple, point: str, nth: int) -> None:
    assert run_day(url, f"{point}:{nth}") == -signal.SIGKILL
    assert run_day(url) == 0
    assert contents(url) == undisturbed


def test_killed_again_and_again(url: str, undisturbed: tuple) -> None:
    """Each start gets one transaction further; the third of each kind is its last."""
    for _ in range(4):
        assert run_day(url, "book.before_commit:3") == -signal.SIGKILL
    for _ in range(3):
        assert run_day(url, "book.after_commit:5") == -signal.SIGKILL
    assert run_day(url) == 0
    assert contents(url) == undisturbed


def test_what_was_not_committed_is_not_there(url: str) -> None:
    assert run_day(url, "book.before_commit:1") == -signal.SIGKILL
    book = Book(url, KEYS, rulebook())
    assert len(book.entries(0)) == 0
    assert book.audit() == []
    book.close()
    assert run_day(url, "book.after_commit:1") == -signal.SIGKILL
    book = Book(url, KEYS, rulebook())
    assert len(book.entries(0)) == 2 * 16
    assert book.undelivered() == (1, 32)
    book.close()


def test_a_database_that_is_killed_has_what_it_acknowledged(undisturbed: tuple) -> None:
    """Its server ends without a word, and recovers from its log."""
    with serving() as server:
        url = server.new_database()
        assert run_day(url, "book.after_commit:9") == -signal.SIGKILL
        before = contents(url)
        server.stop("immediate")
        server.start()
        assert contents(url) == before
        assert run_day(url) == 0
        server.stop("immediate")
        server.start()
        assert contents(url) == undisturbed
