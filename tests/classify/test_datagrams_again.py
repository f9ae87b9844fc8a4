"""A further QUIC connection on the ports of one whose hello is known."""

from __future__ import annotations

import pytest

from pipeline.classify.stage import Limits
from pipeline.model.words import SessionFlag
from tests.classify.test_datagrams import (
    FIRST,
    LONG,
    NOTHING,
    SECOND,
    another,
    halves,
    named,
    words,
)
from tests.forge import quic

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")  # without JIT
DATA = b"\x40" + bytes(60)


def test_a_hello_begun_to_mislead_is_followed_by_the_true_one():
    fake = another("decoy.example", FIRST)
    found = [("decoy.example", NOTHING, 1), ("other.example", SessionFlag.UNRELIABLE, 8)]
    assert named([fake] * 7 + [another()]) == found
    assert words([fake] * 7 + [another()]) == {"named": 2, "skip:flow_done": 6}
    cut = [
        quic.initial(quic.crypto(0, LONG[:1000]), dcid=SECOND, pad_to=1200),
        quic.initial(quic.crypto(1000, LONG[1000:]), dcid=SECOND, number=1, pad_to=1200),
    ]
    found[1] = ("big.example", SessionFlag.UNRELIABLE, 2)
    assert named([fake, *cut]) == found
    assert named([*halves(), another("big.example")])[1:] == [
        ("big.example", SessionFlag.REPEAT, 3)
    ]


@pytest.mark.parametrize("before", range(6))
def test_only_a_few_datagrams_after_a_hello_are_looked_at(before):
    limits = Limits(repeats=4)
    found = named([another("one.example", FIRST), *[DATA] * before, another()], limits)
    assert [host for host, _, _ in found] == ["one.example", "other.example"][
        : 2 if before < 4 else 1
    ]
    counted = words([another("one.example", FIRST), *[DATA] * before, another()], limits)
    assert counted["skip:flow_done" if before else "named"] == (before + (before > 3) or 2)


@pytest.mark.parametrize(
    "raw",
    [
        quic.initial(quic.ack() + quic.PING, dcid=SECOND, first_id=FIRST, pad_to=1200),
        quic.initial(quic.ack(), dcid=SECOND, first_id=SECOND),
        another()[:-1] + b"\0",
        another()[:900],
        quic.other(quic.HANDSHAKE),
        quic.negotiation(),
        b"\xc0",
    ],
)
def test_what_follows_a_hello_of_the_same_connection_is_no_fault(raw):
    payloads = [another("one.example", FIRST), raw, another("one.example", FIRST)]
    assert named(payloads) == [("one.example", NOTHING, 1)]
    assert words(payloads) == {"named": 1, "skip:flow_done": 2}
