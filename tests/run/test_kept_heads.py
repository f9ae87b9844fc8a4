"""Heads that were kept elsewhere: read back, or every line that is none is named."""

from __future__ import annotations

import json

import pytest

from pipeline.run import kept_heads
from pipeline.run.failures import RequestError
from pipeline.run.kept_heads import CHAINS, read_heads

GOOD = {"chain": "trail", "number": 3, "link": "0f" * 32}


def lines(*heads) -> str:
    return "".join((head if isinstance(head, str) else json.dumps(head)) + "\n" for head in heads)


def test_heads_of_many_days_are_read_in_their_order(tmp_path):
    path = tmp_path / "heads"
    dated = GOOD | {"number": 9, "kept": "2026-03-01"}
    path.write_text(lines(GOOD, "", dated))
    assert read_heads(path) == [GOOD, GOOD | {"number": 9}]
    assert set(CHAINS) == {"postings", "requests", "trail"}


@pytest.mark.parametrize(
    "wrong",
    [
        "x", "[]", "3", "null", "[" * 9999,
        GOOD | {"chain": "chain"}, GOOD | {"number": -1}, GOOD | {"number": True},
        GOOD | {"number": 2**70}, GOOD | {"link": "0f"}, GOOD | {"link": "0F" * 32},
        GOOD | {"link": 3}, {"chain": "trail", "number": 1},
    ],
)  # fmt: skip
def test_every_line_that_is_none_is_named(tmp_path, wrong):
    path = tmp_path / "heads"
    path.write_text(lines(wrong, GOOD, wrong))
    with pytest.raises(RequestError) as raised:
        read_heads(path)
    assert raised.value.code == 2
    told = [line.split(": ")[0] for line in str(raised.value).splitlines()]
    assert told == [f"{path}:1", f"{path}:3"]


def test_a_file_without_heads_proves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "heads"
    path.write_text("\n")
    with pytest.raises(RequestError, match="has no heads"):
        read_heads(path)
    monkeypatch.setattr(kept_heads, "HEADS_MAX", 1)
    path.write_text(lines(GOOD, GOOD))
    with pytest.raises(RequestError, match="more than 1 heads"):
        read_heads(path)
