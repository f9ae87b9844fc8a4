"""Random sequences of sessions and facts: the kernel tells what the naive folder tells."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.enrich.visits import Limits
from pipeline.model.words import Protocol, VisitTrigger
from tests.enrich.stories import HOSTS, World, as_dicts, run, same, v4, v6
from tests.naive.visits import Fact, Folder, Policy, Session

POLICY = Policy(gap=10, lateness=4, guard=2, window=8)
START = 1_000
MEMBERS = 3
ADDRESSES = [v4(1), v4(2), v6(1), v6(2, 9)]
# The first prefix of each address is the one its member signs in with.
PREFIXES = [
    (*v4(1), 128), (*v4(2), 128), (v6(1)[0], 0, 64), (v6(2)[0], 0, 64),
    (0, v4(0)[1], 120), (0x20010DB8 << 32, 0, 56), (v6(1)[0], 1, 128),
]  # fmt: skip


@st.composite
def sessions(draw) -> list[Session]:
    found, watermark = [], START
    for number in range(draw(st.integers(0, 24))):
        watermark += draw(st.sampled_from([0, 0, 1, 1, 2, 3, 5, 9, 10, 14, 15, 40]))
        who = draw(st.integers(-1, MEMBERS - 1))
        plain = draw(st.booleans())
        own = draw(st.booleans()) or who < 0
        found.append(
            Session(
                first_ns=watermark - draw(st.sampled_from([0, 0, 0, 1, 2, 4, 9, 10, 12, 20])),
                watermark_ns=watermark,
                subscriber=who,
                owner=draw(st.sampled_from(list(HOSTS))),
                address=ADDRESSES[who] if own else draw(st.sampled_from(ADDRESSES)),
                protocol=Protocol.HTTP if plain else draw(st.sampled_from(list(Protocol)[1:])),
                document=plain and draw(st.booleans()),
                mark=draw(st.sampled_from(["", "", "awc", "cjevent"])) if plain else "",
                referred=plain and draw(st.booleans()),
                unreliable=draw(st.sampled_from([False] * 7 + [True])),
                basis=draw(st.integers(1, 2)),
                packet=number + 1,
                flow=draw(st.sampled_from([0, 0, 1, 2])),
            )
        )
    return found


@st.composite
def facts(draw) -> list[Fact]:
    found = [Fact(PREFIXES[n], n, 1, 1) for n in range(MEMBERS)]
    for _ in range(draw(st.integers(0, 6))):
        event = START + draw(st.integers(-5, 80))
        found.append(
            Fact(
                prefix=draw(st.sampled_from(PREFIXES)),
                subscriber=draw(st.integers(-1, MEMBERS - 1)),
                event_ns=event,
                received_ns=event + draw(st.sampled_from([0, 0, 1, 3, 10, 30])),
            )
        )
    return sorted(found, key=lambda fact: fact.received_ns)


@given(sessions(), facts())
def test_kernel_equals_naive(given_sessions, given_facts):
    batch = run(POLICY, given_facts, given_sessions, [])
    wanted = Folder(POLICY, given_facts).run(given_sessions)
    assert as_dicts(batch, World(POLICY).directory) == wanted


@pytest.mark.slow
@given(sessions(), facts(), st.lists(st.integers(0, 24), max_size=6), st.booleans())
def test_cut_anywhere(given_sessions, given_facts, cuts, restart):
    whole = run(POLICY, given_facts, given_sessions, [], limits=Limits())
    cuts = [cut for cut in cuts if cut <= len(given_sessions)]
    assert same(run(POLICY, given_facts, given_sessions, cuts, restart=restart), whole)
    single = list(range(len(given_sessions)))
    assert same(run(POLICY, given_facts, given_sessions, single), whole)


@pytest.mark.slow
@given(sessions(), facts(), st.integers(0, 24))
def test_facts_that_run_ahead_change_nothing(given_sessions, given_facts, ahead):
    """All facts before all sessions, or each just in time."""
    late = run(POLICY, given_facts, given_sessions, list(range(len(given_sessions))))
    world = World(POLICY)
    world.facts(given_facts)
    world.block(given_sessions[:ahead], advance=False)
    world.block(given_sessions[ahead:], advance=False)
    assert same(world.finish(), late)


@given(sessions(), facts(), st.integers(0, 24))
def test_a_pause_equals_the_naive_one(given_sessions, given_facts, at):
    world = World(POLICY)
    folder = Folder(POLICY, given_facts)
    world.facts(given_facts)
    for part in (given_sessions[:at], given_sessions[at:]):
        world.block(part, advance=False)
        world.out.append(world.enrich.pause(world.tally))
        for session in part:
            folder.push(session)
        folder.pause()
    assert as_dicts(world.finish(), world.directory) == folder.run([])


@given(sessions(), facts())
def test_what_every_history_keeps(given_sessions, given_facts):
    rows = as_dicts(run(POLICY, given_facts, given_sessions, []), World(POLICY).directory)
    by_visit: dict[int, list[dict]] = {}
    for row in rows:
        by_visit.setdefault(row["visit"], []).append(row)
    for versions in by_visit.values():
        assert [row["version"] for row in versions] == list(range(1, len(versions) + 1))
        assert versions[0]["trigger"] == VisitTrigger.OPENED
        assert [r["trigger"] for r in versions].count(VisitTrigger.CLOSED) == 1
        assert versions[-1]["trigger"] == VisitTrigger.CLOSED
        assert [r["trigger"] for r in versions].count(VisitTrigger.DOCUMENT) <= 1
        for before, after in itertools.pairwise(versions):
            assert after["sessions"] >= before["sessions"]
            assert after["first_ns"] <= before["first_ns"]
            assert after["last_ns"] >= before["last_ns"]
            assert after["ambiguous"] >= before["ambiguous"]
            assert after["opened_ns"] == before["opened_ns"]
            assert not before["mark"] or after["mark"] == before["mark"]
    total = sum(versions[-1]["sessions"] for versions in by_visit.values())
    wanted = [
        s for s in given_sessions if s.owner and s.owner[0] == "partner" and s.subscriber >= 0
    ]
    assert total == len(wanted)
