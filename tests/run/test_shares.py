"""Shares of what a mirror shows: from counts, and of nothing."""

from __future__ import annotations

from pipeline.model.tally import Tally
from pipeline.run.shares import mirror_quality
from tests.need import REPOSITORY

NOTHING = {
    "one_way_share": None,
    "duplicate_share": None,
    "gap_share": None,
    "truncated_share": None,
    "unreadable_share": None,
    "unreadable_hidden": 0,
    "unreadable_gap": 0,
    "unreadable_truncated": 0,
    "unreadable_room": 0,
    "weak_names": 0,
    "flows_given_up": 0,
}


def test_of_nothing_there_is_no_share():
    assert mirror_quality(Tally()) == NOTHING


def test_every_key_is_explained():
    page = (REPOSITORY / "docs" / "inspect.md").read_text()
    assert [key for key in NOTHING if f"| `{key}` |" not in page] == []


def test_each_share_is_of_what_it_can_be_part_of():
    tally = Tally()
    for stage, word, count in (
        ("classify", "packets", 1000),
        ("classify", "hidden", 3),
        ("classify", "weak", 5),
        ("classify", "sessions:tls", 66),
        ("classify", "sessions:quic", 20),
        ("classify", "lost_gap", 8),
        ("classify", "lost_cut", 2),
        ("classify", "lost_room", 4),
        ("classify", "given_up", 7),
        ("classify", "fault:hello_incomplete", 40),
        ("classify", "fault:payload_cut", 50),
        ("mirror", "mirror:packets_truncated", 250),
        ("mirror", "mirror:flows_watched", 8),
        ("mirror", "mirror:flows_both_ways", 6),
        ("mirror", "mirror:segments_watched", 500),
        ("mirror", "mirror:segments_twice", 50),
        ("mirror", "mirror:holes", 9),
        ("mirror", "mirror:holes_filled", 4),
    ):
        tally.add(stage, word, count)
    assert mirror_quality(tally) == {
        "one_way_share": 0.25,
        "duplicate_share": 0.1,
        "gap_share": 0.01,
        "truncated_share": 0.25,
        "unreadable_share": 0.17,
        "unreadable_hidden": 3,
        "unreadable_gap": 8,
        "unreadable_truncated": 2,
        "unreadable_room": 4,
        "weak_names": 5,
        "flows_given_up": 7,
    }
