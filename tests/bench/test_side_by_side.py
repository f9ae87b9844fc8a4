"""Readers are compared alike, and whatever falls behind is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import readers, rows
from tests.bench import side_by_side as side
from tests.bench.rows import Key, Score
from tests.bench.side_by_side import Standing
from tests.need import need
from tests.second_opinion.forged import forge

pytestmark = pytest.mark.slow  # whole readers over captures

A, B, C = (("tls", f"{name}.example", "192.0.2.1", 443) for name in "abc")


@pytest.mark.parametrize(
    ("application", "transport", "protocol"),
    [
        ("TLS.Amazon", 6, "tls"),
        ("HTTP", 6, "http"),
        ("HTTP_Proxy.Google", 6, "http"),
        ("QUIC.YouTube", 17, "quic"),
        ("DNS.Google", 17, None),
        ("DNS", 6, None),
        ("Unknown", 6, "tls"),
        ("TLS", 1, None),
    ],
)
def test_applications_are_protocols(application: str, transport: int, protocol: str | None) -> None:
    assert readers.protocol_of(application, transport) == protocol


@pytest.mark.parametrize("name", ["hello", "request"])
def test_others_read_what_is_plainly_there(name: str, tmp_path: Path) -> None:
    capture = forge(name, tmp_path)
    expected = side.ours(capture)
    assert len(expected) == 1
    assert readers.dpkt_packets(capture) == expected
    need("ndpiReader")
    assert readers.ndpi(capture) == expected


def test_a_file_that_nobody_can_read_names_nobody(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pcap"
    broken.write_bytes(b"\xa1\xb2\xc3\xd4" + bytes(9))
    assert readers.dpkt_packets(broken) == set()
    assert side.ours(broken) == set()


def standing(*captures: tuple[set[Key], set[Key], set[Key]]) -> Standing:
    made = Standing()
    for number, (hits, missed, wrong) in enumerate(captures):
        made.add(f"c{number}", hits, missed, wrong)
    return made


def test_rows_count_once_and_captures_alike() -> None:
    made = standing(({A, B}, set(), set()), (set(), {C}, {A}), (set(), set(), set()))
    assert made.scores["tls"] == made.scores["all"] == Score(2, 1, 1)
    assert (made.macro("tls"), made.macro("quic")) == (0.5, 1.0)
    assert made.wrong == [("c1", A)]


def test_whatever_falls_short_is_said() -> None:
    good = standing(({A, B}, set(), set()), ({C}, set(), set()))
    other = standing(({A, B}, set(), set()), (set(), {C}, set()))
    assert list(side.short_of({"ours": good, "theirs": other})) == []
    assert list(side.short_of({"ours": other, "theirs": good})) == [
        "tls: recall 66.7%, asked >= 99%",
        "tls: recall 66.7%, theirs has 100.0%",
        "tls: recall by capture 50.0%, theirs has 100.0%",
    ]
    noisy = standing(({A}, set(), {B}))
    assert list(side.short_of({"ours": noisy})) == ["ours: precision 50.00%, asked >= 99.5%"]


def test_what_is_held_for_right_has_evidence(tmp_path: Path) -> None:
    assert sum(map(len, rows.surplus().values())) <= side.MOST_SURPLUS
    file = tmp_path / "surplus.tsv"
    head = "file\tfingerprint\tevidence\n"
    file.write_text(head + f"x.pcap\t{rows.fingerprint(A)}\tframe 7 holds it whole\n")
    right = rows.surplus(file)
    assert rows.without_surplus("x.pcap", {A, B}, right) == {B}
    assert rows.without_surplus("y.pcap", {A}, right) == {A}
    file.write_text(head + f"x.pcap\t{rows.fingerprint(A)}\t\n")
    with pytest.raises(AssertionError):
        rows.surplus(file)


def test_the_table_has_every_reader() -> None:
    good = standing(({A}, {B}, set()))
    assert side.show({"ours": good, "theirs": good}).splitlines()[2:] == [
        "| ours | 0.500 / 0.500 | 1.000 / 1.000 | 0.500 / 0.500 | 1.000 / 1.000 | 1.000 |",
        "| theirs | 0.500 / 0.500 | 1.000 / 1.000 | 0.500 / 0.500 | 1.000 / 1.000 | 1.000 |",
    ]
