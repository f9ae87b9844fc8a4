"""Text inputs: good rows survive whatever stands beside them, and mistakes are named by place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.capture.facts import (
    LINE_BYTES_MAX,
    OPTIONAL,
    REQUIRED,
    SAMPLES_MAX,
    FactsError,
    read_circle,
    read_members,
    read_orders,
    read_purchases,
    read_signins,
)
from pipeline.model.faults import Fault
from pipeline.model.tally import Tally
from pipeline.model.words import Basis, SignIn

READERS: dict[str, Callable[[Path, Tally], tuple[Any, list[Any]]]] = {
    "sign-ins": read_signins,
    "circle": read_circle,
    "purchases": read_purchases,
    "orders": read_orders,
    "members": read_members,
}
T = "2026-03-01T08:00:00Z"
T_NS = 1_772_352_000_000_000_000
GOOD = {
    "sign-ins": [T, T, "start", "ann@isp.example", "192.0.2.1"],
    "circle": [T, T, "ann@isp.example", "listed"],
    "purchases": [T, T, "acme-shop", "C-1", "pending"],
    "orders": [T, T, "ann@isp.example", "order-1", "100"],
    "members": [T, T, "ann@isp.example"],
}
KINDS = sorted(READERS)


def written(path: Path, kind: str, *rows: list[str] | bytes, columns: Any = None) -> Path:
    """A file of this kind with these rows."""
    columns = columns or REQUIRED[kind]
    lines = [f"# mirrorpoint {kind} v1".encode(), "\t".join(columns).encode()]
    lines += [r if isinstance(r, bytes) else "\t".join(r).encode() for r in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def read(path: Path, kind: str) -> tuple[Any, list[Any], Tally]:
    tally = Tally()
    return *READERS[kind](path, tally), tally


def test_sign_ins(tmp_path: Path) -> None:
    path = written(
        tmp_path / "s.tsv",
        "sign-ins",
        [T, "1772352000000000001", "start", "ann", "192.0.2.1"],
        b"# a remark",
        b"",
        [T, T, "INTERIM", "bob", "2001:db8:1:2::9"],
        [T, T, "stop", "bob", "2001:db8::/48"],
    )
    batch, faults, _ = read(path, "sign-ins")
    assert not faults
    assert batch.row.tolist() == [1, 2, 3]
    assert batch.kind.tolist() == [SignIn.START, SignIn.INTERIM, SignIn.STOP]
    assert batch.login.to_list() == ["ann", "bob", "bob"]
    assert batch.event_ns.tolist() == [T_NS] * 3
    assert batch.received_ns.tolist() == [T_NS + 1, T_NS, T_NS]
    assert batch.prefix_length.tolist() == [128, 64, 48]
    assert batch.address_hi.tolist() == [0, 0x20010DB800010002, 0x20010DB800000000]
    assert batch.address_lo.tolist() == [0xFFFF_C000_0201, 0, 0]


def test_circle(tmp_path: Path) -> None:
    columns = ("terms", "state", "login", "received_ns", "event_ns")  # any order
    rows = [["v1", state, "ann", T, T] for state in ("listed", "consented", "refused", "left")]
    batch, faults, _ = read(written(tmp_path / "c.tsv", "circle", *rows, columns=columns), "circle")
    assert not faults
    assert batch.state.tolist() == [Basis.LISTED, Basis.CONSENTED, Basis.REFUSED, Basis.LEFT]
    assert batch.terms.to_list() == ["v1"] * 4


def test_members(tmp_path: Path) -> None:
    columns = (*REQUIRED["members"], *OPTIONAL["members"])
    rows = [
        [*GOOD["members"], "2024-03-01T00:00:00Z", "Gold", "Fibre tv  fibre"],
        [*GOOD["members"], "", "", ""],
        [*GOOD["members"], "", "very gold", ""],
        [*GOOD["members"], "yesterday", "", ""],
        [T, T, "", "", "gold", ""],
    ]
    path = written(tmp_path / "m.tsv", "members", *rows, columns=columns)
    batch, faults, _ = read(path, "members")
    assert batch.row.tolist() == [1, 2]
    assert batch.level.to_list() == ["gold", ""]
    assert batch.products.to_list() == ["fibre tv", ""]
    assert batch.joined_ns.tolist() == [1_709_251_200_000_000_000, 0]
    assert batch.event_ns.tolist() == batch.received_ns.tolist() == [T_NS, T_NS]
    assert [fault.what.partition(":")[0] for fault in faults] == ["level", "joined", "login"]


def test_orders(tmp_path: Path) -> None:
    rows = [GOOD["orders"], [T, T, "ann", "o2", "-5"], [T, T, "ann", "o3", "9" * 19]]
    batch, faults, _ = read(written(tmp_path / "o.tsv", "orders", *rows), "orders")
    assert batch.points.tolist() == [100, -5]  # a negative number is for the book to refuse
    assert [(f.line, f.what) for f in faults] == [(5, "points: too large")]


def test_purchases_keep_text_and_raw(tmp_path: Path) -> None:
    columns = (*REQUIRED["purchases"], "amount", "at_ns", "items", "their own column")
    row = [T, T, "acme-shop", "C-1", " Approved ", "26.09", T, '[{"sku": "Ä"}]', "x"]
    path = written(tmp_path / "p.tsv", "purchases", row, columns=columns)
    batch, faults, _ = read(path, "purchases")
    assert not faults
    assert (batch.status.text(0), batch.amount.text(0)) == ("Approved", "26.09")
    assert (batch.at_ns[0], batch.status_ns[0]) == (T_NS, 0)
    assert (batch.commission.text(0), batch.items.text(0)) == ("", '[{"sku": "Ä"}]')
    assert batch.raw[0] == "\t".join(row).encode()
    assert batch.input.to_list() == ["p.tsv"]


def test_bad_purchases_go_on_with_their_fault(tmp_path: Path) -> None:
    good = GOOD["purchases"]
    path = written(
        tmp_path / "p.tsv",
        "purchases",
        good,
        good[:4],  # torn off
        ["yesterday", *good[1:]],
        [T, "soon", *good[2:]],
        b"\t".join([*(v.encode() for v in good[:4]), b"\xff"]),
        b"x" * (LINE_BYTES_MAX + 5),
        good,
    )
    batch, faults, tally = read(path, "purchases")
    bad, when = Fault.ROW_MALFORMED, Fault.TIME_BAD
    assert batch.fault.tolist() == [0, bad, when, when, bad, bad, 0]
    assert batch.row.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert (
        batch.received_ns.tolist() == [T_NS] * 7
    )  # the line before, where it is the one that is bad
    assert batch.conversion_id.to_list() == ["C-1", "", "C-1", "C-1", "", "", "C-1"]
    assert batch.raw[1] == "\t".join(good[:4]).encode()
    assert len(batch.raw[5]) == LINE_BYTES_MAX
    assert [(f.line, f.fault) for f in faults] == [
        (4, bad), (5, when), (6, when), (7, bad), (8, bad),
    ]  # fmt: skip
    assert tally.as_dict() == {"capture": {"fault:row_malformed": 3, "fault:time_bad": 2}}


@pytest.mark.parametrize(
    ("kind", "changes", "fault", "what"),
    [
        (
            "sign-ins",
            {2: "begin"},
            Fault.STATE_UNKNOWN,
            "kind: expected one of start, interim, stop",
        ),
        ("sign-ins", {3: ""}, Fault.LOGIN_MISSING, "login: empty"),
        (
            "sign-ins",
            {4: "0.0.0.0/0"},
            Fault.ADDRESS_BAD,
            "address: not an address or prefix of one",
        ),
        ("sign-ins", {4: "fe80::1%eth0"}, Fault.ADDRESS_BAD, "address: not an address or prefix"),
        ("sign-ins", {0: "1772352000"}, Fault.TIME_BAD, "event_ns: not UTC nanoseconds"),  # seconds
        ("sign-ins", {1: "2026-03-01T08:00:00+01:00"}, Fault.TIME_BAD, "received_ns: not UTC"),
        ("circle", {3: "unknown"}, Fault.STATE_UNKNOWN, "state: expected one of listed, consented"),
        ("orders", {3: ""}, Fault.ROW_MALFORMED, "ref: empty"),
        ("orders", {4: "1.5"}, Fault.ROW_MALFORMED, "points: not a whole number"),
        ("orders", {2: "a\x0bb"}, Fault.ROW_MALFORMED, "login: control characters"),
        ("orders", {2: "a" * 1025}, Fault.ROW_MALFORMED, "login: over 1024 bytes"),
        ("orders", {4: "1\t2"}, Fault.ROW_MALFORMED, "6 values for 5 columns"),
    ],
)
def test_a_bad_row_is_named_and_left_out(
    tmp_path: Path, kind: str, changes: dict[int, str], fault: Fault, what: str
) -> None:
    bad = [changes.get(n, value) for n, value in enumerate(GOOD[kind])]
    path = written(tmp_path / "f.tsv", kind, GOOD[kind], bad, GOOD[kind])
    batch, faults, tally = read(path, kind)
    assert batch.row.tolist() == [1, 3]
    assert [(f.file, f.line, f.fault) for f in faults] == [(str(path), 4, fault)]
    assert faults[0].what.startswith(what)
    assert str(faults[0]).startswith(f"{path}:4: {what}")
    assert tally.as_dict() == {"capture": {f"fault:{fault.name.lower()}": 1}}


def test_faults_never_show_what_stood_there(tmp_path: Path) -> None:
    secret = "+12025550123"
    rows = [[secret] * 5, [T, T, secret, secret, secret], [T, T, "start", "", secret]]
    _, faults, _ = read(written(tmp_path / "s.tsv", "sign-ins", *rows), "sign-ins")
    assert len(faults) == 3
    assert not [f for f in faults if secret in f.what]


def test_samples_are_bounded_and_counts_are_not(tmp_path: Path) -> None:
    rows = [["bad"]] * (SAMPLES_MAX + 50)
    _, faults, tally = read(written(tmp_path / "o.tsv", "orders", *rows), "orders")
    assert len(faults) == SAMPLES_MAX
    assert tally.of("fault:row_malformed") == SAMPLES_MAX + 50


@pytest.mark.parametrize("kind", KINDS)
def test_every_mistake_of_a_header_at_once(tmp_path: Path, kind: str) -> None:
    columns = [c for c in REQUIRED[kind] if c not in ("event_ns", "received_ns")]
    columns += ["recieved_ns", columns[0]]
    path = written(tmp_path / "f.tsv", kind, columns=columns)
    with pytest.raises(FactsError) as error:
        read(path, kind)
    assert error.value.problems == [
        f"{path}:2: there is no column 'event_ns'",
        f"{path}:2: there is no column 'received_ns'; nearest: 'recieved_ns'",
        f"{path}:2: column '{columns[0]}' is there twice",
    ]


def test_a_misspelled_optional_column_is_an_error(tmp_path: Path) -> None:
    columns = (*REQUIRED["purchases"], "comission", "basket")
    with pytest.raises(FactsError) as error:
        read(written(tmp_path / "p.tsv", "purchases", columns=columns), "purchases")
    assert [p.split(": ", 1)[1] for p in error.value.problems] == [
        "unknown column 'comission'; nearest: 'commission'"
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [b"", b"event_ns\n", b"# mirrorpoint nothing v1\n", b"\x00\xff"])
def test_another_kind_of_file_is_one_clear_error(tmp_path: Path, kind: str, first: bytes) -> None:
    path = tmp_path / "f.tsv"
    path.write_bytes(first)
    with pytest.raises(FactsError, match=f"the first line has to be '# mirrorpoint {kind} v1'"):
        read(path, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_windows_lines_and_a_byte_order_mark(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / "f.tsv", kind, GOOD[kind])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n").rstrip(b"\r\n"))
    batch, faults, _ = read(path, kind)
    assert (len(batch), faults) == (1, [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_alone_gives_no_rows(tmp_path: Path, kind: str) -> None:
    batch, faults, _ = read(written(tmp_path / "f.tsv", kind), kind)
    assert (len(batch), faults) == (0, [])
    assert set(REQUIRED[kind]).isdisjoint(OPTIONAL[kind])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(KINDS), st.lists(st.binary(max_size=60), max_size=6), st.randoms())
def test_any_bytes_beside_good_rows(
    tmp_path: Path, kind: str, junk: list[bytes], random: Any
) -> None:
    """Junk lines are counted or passed over; every good row is there."""
    lines: list[Any] = [GOOD[kind]] * 3 + [j.replace(b"\n", b"\t") for j in junk]
    random.shuffle(lines)
    batch, faults, _ = read(written(tmp_path / "f.tsv", kind, *lines), kind)
    good = batch.take(batch.fault == 0) if kind == "purchases" else batch
    assert len(good) == 3
    expected = sum(bool(j.strip()) and not j.lstrip(b"\r").startswith(b"#") for j in junk)
    assert len(faults) <= len(junk)
    assert len(faults) >= expected - sum(j.startswith((b"#", b"\r")) for j in junk)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(KINDS), st.binary(max_size=400))
def test_any_file_is_rows_or_one_error(tmp_path: Path, kind: str, content: bytes) -> None:
    path = tmp_path / "f.tsv"
    for prefix in (b"", f"# mirrorpoint {kind} v1\n".encode()):
        path.write_bytes(prefix + content)
        try:
            batch, faults, tally = read(path, kind)
        except FactsError as error:
            said = error.problems
        else:
            said = [f.what for f in faults]
            assert sum(tally.counts.values()) == len(faults)
            assert max(len(batch), len(faults)) <= len(content.splitlines())
        assert all(isinstance(line, str) and line for line in said)


def test_orders_may_ask_for_more_than_spending(tmp_path):
    path = tmp_path / "orders.tsv"
    head = "# mirrorpoint orders v1\nevent_ns\treceived_ns\tlogin\tref\tpoints\tkind\torder\tbody\n"
    rows = [
        "2026-03-01T10:00:00Z\t2026-03-01T10:00:00Z\tann@isp.example\to1\t5\t\t\t",
        "2026-03-02T10:00:00Z\t2026-03-02T10:00:00Z\t\tc1\t0\tcommit\to1\t",
        '2026-03-03T10:00:00Z\t2026-03-03T10:00:00Z\tann@isp.example\ta1\t5\tadjust\t\t{"reason": "complaint"}',
        "2026-03-04T10:00:00Z\t2026-03-04T10:00:00Z\tann@isp.example\tx1\t5\tingest_begin\t\t",
        "2026-03-05T10:00:00Z\t2026-03-05T10:00:00Z\tann@isp.example\tx2\t5\tadjust\t\t[1]",
        "2026-03-06T10:00:00Z\t2026-03-06T10:00:00Z\t\tx3\t5\t\t\t",
    ]
    path.write_text(head + "\n".join(rows) + "\n")
    batch, faults = read_orders(path, Tally())
    assert batch.kind.to_list() == ["", "commit", "adjust"]
    assert batch.order.to_list() == ["", "o1", ""]
    assert [fault.what.partition(":")[0] for fault in faults] == ["kind", "body", "login"]
