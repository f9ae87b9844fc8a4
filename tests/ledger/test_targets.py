"""Requests from batches: every column arrives, mistakes are named, texts suit a database."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.ledger.targets import plain_column, targets_of, what_is_wrong
from pipeline.model.columns import TextColumn
from pipeline.model.identifiers import NO_ID
from pipeline.model.words import TargetState
from tests.ledger.stories import target, target_batch


def test_a_batch_and_its_rows_say_the_same() -> None:
    rows = [target("a", 40, "available", money="100/40/60"), target("b", 7, "pending", fold=9)]
    assert targets_of(target_batch(rows)) == rows
    assert targets_of(target_batch([])) == []


def test_a_large_hash_of_facts_becomes_a_signed_number() -> None:
    batch = target_batch([target()]).with_columns(facts_hash=np.array([2**64 - 1], np.uint64))
    assert targets_of(batch)[0].facts_hash == -1


def test_no_text_holds_what_no_database_takes() -> None:
    assert plain_column(TextColumn.of(["plain", "with\0nul", ""])) == ["plain", "with�nul", ""]
    assert plain_column(TextColumn.of([b"\xff"])) == ["�"]


def test_columns_become_plain_values() -> None:
    assert plain_column(np.array([1, 2], np.uint8)) == [1, 2]
    assert all(type(v) is int for v in plain_column(np.array([1], np.int64)))
    raw = bytes(range(16))
    assert plain_column(np.frombuffer(raw + bytes(16), "V16")) == [raw, NO_ID]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"conversion_key": NO_ID}, "no conversion"),
        ({"margin_minor": 61}, "cost and margin"),
        ({"state": int(TargetState.PENDING)}, "before its points are available"),
        ({"currency": ""}, "without a currency"),
        ({"rule_version": NO_ID}, "no rule version"),
    ],
)
def test_mistakes_are_named(changed: dict, said: str) -> None:
    sound = target("a", 40, "available", money="100/40/60")
    assert what_is_wrong(sound) == ""
    assert said in what_is_wrong(sound._replace(**changed))
    with pytest.raises(ValueError, match=said):
        targets_of(target_batch([sound, sound._replace(**changed)]))


def test_points_need_a_state() -> None:
    assert "no state" in what_is_wrong(target("a", 5, "none"))


def test_worth_is_what_counts() -> None:
    sound = target("a", 40, "available", money="100/40/60")
    for name in ("fold", "facts", "facts_hash", "reason", "event_ns", "release_ns"):
        assert sound._replace(**{name: 77}).worth == sound.worth, name
    for name, value in (
        ("state", 1),
        ("points", 41),
        ("subscriber_id", NO_ID),
        ("currency", "USD"),
    ):
        assert sound._replace(**{name: value}).worth != sound.worth, name
    nobody = target("a", 0, "none")
    assert nobody._replace(subscriber_id=NO_ID).worth == nobody.worth, "nobody gets nothing"


def test_a_target_without_points_stands_nowhere() -> None:
    assert target("a", 0, "pending").standing == TargetState.NONE
    assert target("a", 1, "pending").standing == TargetState.PENDING
