"""What is made to cost as much as it can costs by its size, keeps to the limits, and is named.

The full sizes are run by hand (`python -m tests.bench.pathological`).
"""

from __future__ import annotations

import time
import tracemalloc

import pytest

from pipeline.classify.stage import Limits
from pipeline.model.stage import END_OF_TIME
from pipeline.model.tally import Tally
from tests.bench.pathological import PATHOLOGIES, Pathology, fresh, in_order, packets, spend
from tests.classify.test_stage import talk, timed
from tests.classify.test_track import compare, fast

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")  # without JIT
SCARCE = Limits(
    flows=1 << 10,
    holdings=64,
    names=256,
    fragment_sets=64,
    fragment_blocks=256,
    block_bytes=1 << 16,
)
SHARE = 50  # of the full size a test takes the fiftieth part


def seconds(pathology: Pathology, size: int) -> float:
    """The least of three runs: what else the machine does only adds."""
    return min(spend(pathology, size, SCARCE)[0] for _ in range(3))


@pytest.mark.slow
@pytest.mark.parametrize("name", PATHOLOGIES)
def test_four_times_the_size_takes_four_times_as_long(name):
    pathology = PATHOLOGIES[name]
    size = pathology.size // SHARE
    spend(pathology, 2)  # loads the kernels
    less, more = seconds(pathology, size), seconds(pathology, 4 * size)
    assert more < 10 * less + 0.02, "the square would be sixteen times"


@pytest.mark.slow
@pytest.mark.parametrize("line", [b"Host:\r\n", b"Host: 1\r\n", b"Host: \x0b\r\n", b"Host:.\r\n"])
@pytest.mark.parametrize("first", [b"1" * 30_000, b"." * 30_000, b"\x0b" * 30_000, b"a.example"])
def test_many_hosts_in_a_head_cost_what_other_fields_do(line, first):
    """What the first of them names is not found out again for each."""
    spent = []
    for lines in (line, line.replace(b"Host", b"Hosx")):
        raw = (
            b"GET / HTTP/1.1\r\nHost: " + first + b"\r\n" + lines * (30_000 // len(line)) + b"\r\n"
        )
        frames_ = timed(talk(raw))
        runs = []
        for _ in range(5):
            before = time.process_time()
            fast(frames_, Limits())
            runs.append(time.process_time() - before)
        spent.append(min(runs))
    assert spent[0] < 3 * spent[1] + 0.005, "the square of their number would be sixty times"


@pytest.mark.slow
@pytest.mark.parametrize("name", PATHOLOGIES)
def test_memory_is_that_of_the_limits_and_what_stopped_it_is_named(name):
    pathology = PATHOLOGIES[name]
    peaks = []
    for size in (pathology.size // SHARE, pathology.size // SHARE * 3):
        spend(pathology, 2)
        tracemalloc.start()
        stage, tally = fresh(SCARCE), Tally()
        pathology.feed(size, stage, tally)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        stage.advance(END_OF_TIME, tally)
        assert stage.held_rows == 0
        counted = {word for (_, word), count in tally.counts.items() if count}
        assert counted >= set(pathology.words)
    assert peaks[1] < peaks[0] + (1 << 20)


@pytest.mark.slow
def test_requests_behind_a_gap_cost_what_they_cost_in_order():
    """Moved forward in their window one by one, they cost fifteen times as much."""
    behind = PATHOLOGIES["requests behind a gap"]
    before = Pathology("requests in order", ("named",), packets(in_order))
    size = 17 * 500
    assert spend(behind, size)[1].of("named") == spend(before, size)[1].of("named") == 500 * 16
    assert seconds(behind, size) < 4 * seconds(before, size)


@pytest.mark.parametrize("more", [0, 3, 60, 200])
def test_requests_behind_a_gap_are_read_like_others(more):
    """Bodies end within what is held, at its end, in the gap and behind it all."""
    body = b"x" * more
    one = b"POST / HTTP/1.1\nHost: a%d.example\nContent-Length: %d\n\n%s"
    stream = b"".join(one % (n, more, body) for n in range(9))
    for first in (10, 70, 300):
        for gap in (0, 50):
            step = 100 + more
            held = [(at, stream[at : at + step]) for at in range(first, len(stream), step + gap)]
            rows = compare(timed(talk(*held[::-1], (0, stream[:first]))))
            assert len(rows) == 9 or gap
            compare(timed(talk(*held, (0, stream[:first]), (0, stream))), SCARCE)
