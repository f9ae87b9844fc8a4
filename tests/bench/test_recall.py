"""The rules of comparison, and a corpus of two forged captures scored end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench import recall
from tests.bench.rows import clean, compare, key_of_session
from tests.second_opinion.forged import SERVER4, forge


def truth(host: str, proto: str = "tls", **marks: bool) -> dict[str, Any]:
    row = {"proto": proto, "host": host, "server_ip": SERVER4, "server_port": 443}
    return row | {"layers": "eth:ethertype:ip:tcp", "flows": 1} | marks


def session(host: str, proto: str = "tls") -> dict[str, Any]:
    return {"proto": proto, "host": host, "server": SERVER4, "server_port": 443}


def compared(found: list[dict[str, Any]], listed: list[dict[str, Any]]) -> Any:
    return compare({key_of_session(row) for row in found}, listed)


def test_rows_are_hit_missed_or_wrong() -> None:
    hits, missed, wrong = compared(
        [session("a.example"), session("x.example")], [truth("a.example"), truth("b.example")]
    )
    assert [key[1] for key in hits] == ["a.example"]
    assert [key[1] for key in missed] == ["b.example"]
    assert [key[1] for key in wrong] == ["x.example"]


@pytest.mark.parametrize("mark", ["odd", "partial"])
def test_odd_and_partial_rows_count_neither_way(mark: str) -> None:
    marked = truth("a.example", **{mark: True})
    assert compared([], [marked]) == (set(), {}, set())
    assert compared([session("a.example")], [marked]) == (set(), {}, set())


def test_a_host_seen_twice_counts_once() -> None:
    hits, missed, wrong = compared([session("a.example")] * 2, [truth("a.example")])
    assert (len(hits), len(missed), len(wrong)) == (1, 0, 0)


def test_the_protocol_belongs_to_the_row() -> None:
    hits, missed, wrong = compared([session("a.example", "quic")], [truth("a.example")])
    assert (len(hits), len(missed), len(wrong)) == (0, 1, 1)


def test_addresses_are_compared_as_addresses() -> None:
    row = truth("a.example") | {"server_ip": "2001:DB8:0:0::9"}
    found = session("a.example") | {"server": "2001:db8::9"}
    assert len(compared([found], [row])[0]) == 1


@pytest.mark.parametrize(
    ("host", "cleaned"),
    [
        ("Shop.Example.", "shop.example"),
        ("shop.example:8080", "shop.example"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        (" shop.example ", "shop.example"),
    ],
)
def test_hosts_are_cleaned_as_in_the_truth(host: str, cleaned: str) -> None:
    assert clean(host) == cleaned


@pytest.fixture
def small_corpus(tmp_path: Path) -> Path:
    packets, answers = tmp_path / "packets", tmp_path / "truth"
    packets.mkdir()
    answers.mkdir()
    for name in ("hello", "request"):
        capture = forge(name, packets)
        proto, host = ("tls", "tls.example") if name == "hello" else ("http", "shop.example")
        row = truth(host, proto) | {"server_port": 443 if proto == "tls" else 80}
        lines = [row] if name == "hello" else [row, truth("missing.example", "http")]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (answers / f"{capture.name}.jsonl").write_text(text)
    return tmp_path


def test_a_corpus_is_scored(small_corpus: Path) -> None:
    found = recall.score(small_corpus)
    assert found.files == 2
    assert found.scores["tls"].recall == 1.0
    assert found.scores["http"].as_dict() | {"recall": 0.5, "missed": 1} == (
        found.scores["http"].as_dict()
    )
    assert found.of("http", "tls").hits == 2
    assert found.scores["all"].precision == 1.0
    assert [key[1] for _, key, _ in found.misses] == ["missing.example"]
    assert "missed http missing.example" in recall.show(found, misses=True)


@pytest.mark.parametrize(("least", "code"), [(0.5, 0), (0.99, 1)])
def test_the_program_prints_scores_and_fails_below_what_is_asked(
    small_corpus: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    least: float,
    code: int,
) -> None:
    assert recall.LEAST_RECALL == 0.99
    monkeypatch.setattr(recall, "LEAST_RECALL", least)
    assert recall.main(["--corpus", str(small_corpus), "--json"]) == code
    told = capsys.readouterr()
    printed = json.loads(told.out)
    assert printed["scores"]["all"]["rows"] == 3
    assert printed["failed"] == []
    assert ("http: recall 50.0%, asked: >= 99%" in told.err) == bool(code)


def test_a_row_that_is_wrong_is_too_many(
    small_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (small_corpus / "truth" / "hello.pcap.jsonl").write_text("")
    assert recall.main(["--corpus", str(small_corpus)]) == 1
    assert "precision 50.00%" in capsys.readouterr().err


def test_a_corpus_that_names_nobody_measures_nothing(
    small_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (small_corpus / "truth").iterdir():
        file.write_text("")
    assert recall.main(["--corpus", str(small_corpus)]) == 1
    assert "nothing was measured" in capsys.readouterr().err


def test_a_folder_that_is_no_corpus_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recall.main(["--corpus", str(tmp_path)]) == 2
    assert "--corpus" in capsys.readouterr().err


def test_a_checkout_without_a_corpus_measures_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "REPOSITORY", tmp_path / "checkout")
    monkeypatch.delenv("MIRRORPOINT_CORPUS", raising=False)
    assert recall.main([]) == 0
    assert "no corpus" in capsys.readouterr().err
    monkeypatch.setenv("MIRRORPOINT_CORPUS", str(tmp_path))
    assert recall.main([]) == 2, "a folder that was named has to be one"
