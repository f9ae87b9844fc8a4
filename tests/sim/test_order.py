"""The generated day cut into small blocks, and with its messages in another order of arrival.

What tests/properties/test_generated_days.py asks of many small days, asked of one that is as large
as `DAY_VISITS` says (`make check-main-path` says 100,000): several segments of the journal and many
blocks of the projection, the book and the outbox.
"""

import random
import shutil

import pytest

from tests.commands import hashes, replayed
from tests.forge.generated_day import write_day
from tests.forge.recut import arrive_otherwise, without_orders
from tests.sim.test_crash import SEED, VISITS

pytestmark = pytest.mark.slow
SMALL_ROWS = 7


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    """A day without orders: spending may not lie between messages whose order is to be free."""
    case = write_day(tmp_path_factory.mktemp("day") / "case", visits=VISITS, seed=SEED)
    without_orders(case)
    return case


@pytest.fixture(scope="module")
def whole(day, tmp_path_factory):
    """What a replay in large blocks, in the order of the file, comes to."""
    report = replayed(day, state=tmp_path_factory.mktemp("whole") / "state")
    assert report["visits"] >= VISITS
    assert report["conversions"] > VISITS // 20
    return report


def test_small_blocks(day, whole, tmp_path):
    assert hashes(replayed(day, state=tmp_path / "small", rows=SMALL_ROWS)) == hashes(whole)


def test_another_order_of_arrival(day, whole, tmp_path):
    shutil.copytree(day, tmp_path / "case")
    arrive_otherwise(tmp_path / "case", random.Random(SEED))
    other = replayed(tmp_path / "case", state=tmp_path / "other")
    assert other["ledger_hash"] == whole["ledger_hash"]
    assert other["journal_hash"] != whole["journal_hash"]
