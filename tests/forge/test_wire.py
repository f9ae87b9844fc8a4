"""Forged packets say what they were told to: read back by somebody else's parser and by ours."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import dpkt
import pytest

from pipeline.capture.reader import CaptureReader
from pipeline.classify.stage import Classify
from pipeline.model.columns import concat
from pipeline.model.identifiers import Keys
from pipeline.model.stage import END_OF_TIME
from pipeline.model.tally import Tally
from pipeline.model.words import ParseFor, Protocol, SessionFlag
from tests.forge import heads
from tests.forge.forge_first_day import FOLDER
from tests.forge.texts import COLUMNS, write_rows
from tests.forge.wire import Wire


def names(path: Path) -> Counter[tuple[str, str]]:
    """(protocol, host) of all sessions in a capture, whoever they are of."""
    tally = Tally()
    stage = Classify(circle=None, parse_for=ParseFor.EVERYONE, keys=Keys.from_seed("look"))
    with open(path, "rb") as file:
        packets = CaptureReader(file, source=path.name, source_id=0, tally=tally)
        parts = [stage.push(batch, tally) for batch in packets]
    sessions = concat([*parts, stage.advance(END_OF_TIME, tally)])
    return Counter(
        (Protocol(p).name.lower(), host)
        for p, host, flags in zip(
            sessions.protocol.tolist(),
            sessions.host.to_list(),
            sessions.flags.tolist(),
            strict=True,
        )
        if not flags & SessionFlag.REPEAT
    )


def test_every_name_of_the_first_day_is_on_the_wire() -> None:
    found = names(FOLDER / "input.pcap")
    assert found["http", "acme.example"] == 11
    assert found["tls", "pay.acme.example"] == 1
    assert found["tls", "acme.example"] == 1, "the hello with swapped segments"
    assert found["tls", "www.books.example"] == 3
    assert found["http", "acme.example.evil.example"] == 1
    assert found["http", "2001:db8:66::6"] == 1
    assert found["tls", "www.delta.example"] == 1, (
        "carol's hello is whole for somebody who may look"
    )


@pytest.mark.parametrize("post_quantum", [False, True])
def test_hellos_are_whole_records(post_quantum: bool) -> None:
    hello = heads.client_hello("www.acme.example", random.Random(1), post_quantum)
    record, used = dpkt.ssl.TLSRecord(hello), len(hello)
    assert record.length + 5 == used
    body = dpkt.ssl.TLSHandshake(record.data).data
    extensions = dict(body.extensions)
    assert extensions[0][5:] == b"www.acme.example"
    assert len(extensions[0x33]) > 32
    assert (used > 1460) == post_quantum


def test_a_document_request_looks_like_a_browsers() -> None:
    request = dpkt.http.Request(heads.document("acme.example", "/a", "http://acme.example/"))
    assert (request.method, request.uri) == ("GET", "/a")
    assert request.headers["host"] == "acme.example"
    assert request.headers["accept"].startswith("text/html")
    assert request.headers["cookie"] == heads.COOKIE
    assert request.headers["referer"] == "http://acme.example/"
    script = dpkt.http.Request(heads.script_call("acme.example", "/api"))
    assert "text/html" not in script.headers["accept"]
    form = dpkt.http.Request(heads.form("acme.example", "/login", b"a=1"))
    assert form.body == b"a=1"


def test_the_same_seed_gives_the_same_packets(tmp_path: Path) -> None:
    for name in ("a", "b"):
        wire = Wire("seed")
        wire.http(10**18, "192.0.2.1", "192.0.2.2", heads.document("a.example"), tags=(5, 6))
        wire.tls(
            10**18 + 7,
            "2001:db8::1",
            "2001:db8::2",
            heads.client_hello("b.example", wire.rng, post_quantum=True),
            cuts=(40, 900),
            swapped=True,
        )
        wire.datagram(10**18, "192.0.2.1", "192.0.2.3", 53, b"question", b"answer")
        wire.noise(10**18, "192.0.2.1", "192.0.2.4")
        wire.write(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert names(tmp_path / "a") == Counter({("http", "a.example"): 1, ("tls", "b.example"): 1})


def test_rows_are_written_by_name(tmp_path: Path) -> None:
    path = tmp_path / "o.tsv"
    assert write_rows(path, "orders", [{"ref": "r", "points": "5"}, "as it stands"]) == 2
    lines = path.read_text().splitlines()
    assert lines[0] == "# mirrorpoint orders v1"
    assert lines[1].split("\t") == list(COLUMNS["orders"])
    assert lines[-2:] == ["\t\t\tr\t5", "as it stands"]
