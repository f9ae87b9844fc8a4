"""Any generated day: however it is cut into blocks and in whatever order messages arrive.

Every example draws a seed, and the seed draws everything else: the day, the rows of a batch, where
the cuts lie and what `now` is there, which cut is delivered again, the order of arrival. So a
failure is repeated by its one number. Replays run in this process, over stores in memory: what is
tested is that they agree, not that a command line starts.
"""

from __future__ import annotations

import itertools
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pipeline.model.identifiers import Keys
from pipeline.run.replay import plan_of, replay
from pipeline.run.state import State
from tests.commands import hashes
from tests.forge.generated_day import write_day
from tests.forge.recut import arrive_otherwise, cut_anywhere, without_orders

pytestmark = pytest.mark.slow

NUMBERS = itertools.count()
SEEDS = st.integers(0, 2**32)
# A smaller number is no simpler day, so nothing is gained by searching for one.
FEW = settings(max_examples=4, phases=[Phase.explicit, Phase.reuse, Phase.generate])


def outcome(case, rows=4096):
    """The report of a replay of `case`, in batches of `rows`, into a state that is thrown away."""
    plan = plan_of([case], None, rows)
    with tempfile.TemporaryDirectory() as folder:
        state = State(
            Path(folder),
            Keys.from_seed(plan.seed),
            plan.rulebook,
            clickhouse_url="chdb://:memory:",
            database=f"day_{next(NUMBERS)}",
            book_url="sqlite://",
        )
        try:
            return replay(plan, state).as_dict()
        finally:
            state.close()


def a_day(folder, draw):
    """A day of a few hundred visits."""
    visits = draw.randrange(300, 1001)
    return write_day(folder / "case", visits=visits, seed=draw.randrange(2**16), orders=20)


@FEW
@given(seed=SEEDS)
def test_blocks_of_any_size(tmp_path_factory, seed):
    draw = random.Random(seed)
    case = a_day(tmp_path_factory.mktemp("day"), draw)
    cuts = cut_anywhere(case, draw, draw.randint(1, 3))
    rows = draw.choice((1, 2, 7, draw.randint(1, 64), draw.randint(1, 4096)))
    whole, cut = outcome(case), outcome(case, rows)
    assert whole["visits"] >= 300
    assert whole["entries"] > 0
    assert hashes(cut) == hashes(whole), (rows, cuts)
    assert cut == whole, (rows, cuts)


@FEW
@given(seed=SEEDS)
def test_any_order_of_arrival(tmp_path_factory, seed):
    draw = random.Random(seed)
    case = a_day(tmp_path_factory.mktemp("day"), draw)
    without_orders(case)
    cut_anywhere(case, draw, draw.randint(1, 3), ("purchases.tsv",))
    first = outcome(case)
    arrive_otherwise(case, draw)
    cut_anywhere(case, draw, draw.randint(1, 3), ("purchases.tsv",))
    other = outcome(case)
    assert first["conversions"] > 20
    assert other["ledger_hash"] == first["ledger_hash"]
    assert other["conversions_by_kind"] == first["conversions_by_kind"]
    assert other["conversions_hash"] == first["conversions_hash"]
    assert other["journal_hash"] != first["journal_hash"]
