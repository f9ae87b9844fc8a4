"""Addresses chosen to collide in tables that are keyed by a secret.

Whoever knows the key can have a thousand flows looked for at one slot, and that is shown here, or
the rest would prove nothing: such a search is as long as there are flows, of which the table has a
stated number. Who does not know it can only choose by another key, or by the look of addresses, and
searches stay a few slots long.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipeline.classify.stage import Classify, Limits
from pipeline.classify.state_kernels import SLOT
from pipeline.kernels.circle import Circle
from pipeline.model.identifiers import Keys, words_of
from pipeline.model.tally import Tally
from pipeline.model.words import ParseFor
from tests.bench.pathological import PORT, SOURCE, Make, Numbers, batches, copies, put
from tests.classify import frames
from tests.classify.frames import SYN
from tests.kernels.test_circle import binding_batch
from tests.naive import hashing

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")  # without JIT
KNOWN, OTHER = Keys.from_seed("known to the sender"), Keys.from_seed("known to nobody")
SLOTS, CHOSEN = 1 << 13, 1000  # less than half of the slots: the table does not grow
FEW = 48
U64 = np.uint64
MAPPED = 0xFFFF << 32
TEN = 0x0A000000


def mix(x: np.ndarray) -> np.ndarray:
    """`hashing.mix64` of many."""
    x = (x ^ (x >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> U64(27))) * U64(0x94D049BB133111EB)
    return x ^ (x >> U64(31))


def address_hashes(keys: Keys, lo: np.ndarray) -> np.ndarray:
    """`hashing.address_hash` of many words below a high one of 0."""
    key0, key1 = words_of(keys.address)
    return mix(mix(np.array([key0])) + (lo.astype(U64) ^ key1) * U64(0x9E3779B97F4A7C15))


def homes(keys: Keys, sources: np.ndarray, port: int = 50_000) -> np.ndarray:
    """Where flows of these IPv4 addresses to one server are looked for first."""
    server = np.array([MAPPED | 0xC6336414])  # 198.51.100.20

    def ends(lo: np.ndarray, number: int) -> np.ndarray:
        return mix(address_hashes(keys, lo) + U64(number) + (U64(6) << U64(16)))

    both = ends(MAPPED | sources, port) + ends(server, 443)
    return mix(both) >> U64(1) & U64(SLOTS - 1)


def colliding(found: np.ndarray) -> np.ndarray:
    """Of candidates with these homes, those of the one that most share."""
    fullest = np.bincount(found.astype(np.int64)).argmax()
    return np.flatnonzero(found == U64(fullest))[:CHOSEN]


def test_the_hashes_of_many_are_those_of_one():
    key0, key1 = map(int, words_of(KNOWN.address))
    expected = hashing.address_hash(key0, key1, 0, MAPPED | TEN)
    assert address_hashes(KNOWN, np.array([MAPPED | TEN])).tolist() == [expected]


def of_sources(sources: np.ndarray) -> Make:
    """A handshake of each address."""

    def make(numbers: Numbers) -> np.ndarray:
        return put(copies(frames.tcp(flags=SYN), numbers), SOURCE, sources[numbers], 4)

    return make


def longest_search(keys: Keys, make: Make, size: int = CHOSEN, flows: int = SLOTS) -> int:
    """How far from where it is looked for first the farthest flow is."""
    limits = Limits(flows=flows)
    stage, tally = (
        Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=keys, limits=limits),
        Tally(),
    )
    for batch in batches(make, size):
        stage.push(batch, tally)
    saved = stage.snapshot()
    (size_of_table,) = saved["size"].tolist()
    assert size_of_table == min(SLOTS, 2 * flows)
    assert len(saved["taken"]) == min(size, flows)
    assert tally.of("fault:flows_exhausted") == max(size - flows, 0)
    slots = saved["slots"].reshape(-1).view(SLOT)
    home = (slots["fingerprint"] >> U64(1)).astype(np.int64) & (size_of_table - 1)
    return int(((saved["taken"] - home) & (size_of_table - 1)).max())


@pytest.fixture(scope="module")
def chosen() -> np.ndarray:
    """Addresses of 10.0.0.0/8 whose flows meet at one slot under the known key."""
    candidates = TEN | np.arange(1 << 23)
    found = candidates[colliding(homes(KNOWN, candidates))]
    assert len(found) == CHOSEN
    return found


def test_who_knows_the_key_makes_a_search_as_long_as_there_are_flows_and_no_longer(chosen):
    assert longest_search(KNOWN, of_sources(chosen)) == CHOSEN - 1
    for flows in (64, 256):
        assert longest_search(KNOWN, of_sources(chosen), flows=flows) < flows


def test_who_does_not_know_it_makes_none_longer(chosen):
    assert longest_search(OTHER, of_sources(chosen)) < FEW
    for number in range(8):
        assert longest_search(Keys.from_seed(str(number)), of_sources(chosen)) < FEW


@pytest.mark.parametrize("stride", [1, 2, 256, SLOTS, SLOTS - 1, 65_536 - 1, 10_007])
def test_addresses_and_ports_in_step_do_not_meet(stride):
    def ports(numbers: Numbers) -> np.ndarray:
        made = copies(frames.tcp(flags=SYN), numbers)
        return put(made, PORT, 1 + numbers * stride % 65_521, 2)

    sources = TEN | np.arange(CHOSEN, dtype=np.int64) * stride & 0xFFFFFF
    for keys in (KNOWN, OTHER):
        if len(set(sources.tolist())) == CHOSEN:
            assert longest_search(keys, of_sources(sources)) < FEW
        assert longest_search(keys, ports) < FEW


def farthest_prefix(keys: Keys, addresses: np.ndarray) -> int:
    """The same of the circle's table of addresses."""
    circle = Circle(words_of(keys.address), capacity=SLOTS)
    rows = [((0, MAPPED | int(address), 128), n, 0, 0) for n, address in enumerate(addresses)]
    circle.bind(binding_batch(rows))
    prefixes = circle.arrays.prefixes
    assert len(prefixes) == SLOTS
    taken = np.flatnonzero(prefixes["newest"])
    assert len(taken) == len(addresses)
    home = address_hashes(keys, prefixes["lo"][taken] + U64(128)) & U64(SLOTS - 1)
    return int(((taken - home.astype(np.int64)) & (SLOTS - 1)).max())


def test_the_circle_as_well():
    candidates = TEN | np.arange(1 << 23)
    found = colliding(address_hashes(KNOWN, (MAPPED | candidates) + 128) & U64(SLOTS - 1))
    addresses = candidates[found]
    assert farthest_prefix(KNOWN, addresses) == len(addresses) - 1 > 500
    assert farthest_prefix(OTHER, addresses) < FEW
    for keys, stride in itertools.product((KNOWN, OTHER), (1, 256, SLOTS)):
        steps = TEN | np.arange(CHOSEN) * stride & 0xFFFFFF
        assert farthest_prefix(keys, steps) < FEW
