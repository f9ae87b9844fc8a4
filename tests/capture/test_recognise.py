"""Files are told apart by their first bytes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.capture.recognise import InputKind, recognise, recognise_bytes

CLASSIC = [0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34]


@pytest.mark.parametrize("magic", CLASSIC)
@pytest.mark.parametrize("order", "<>")
def test_classic_captures_of_both_orders(tmp_path, magic, order):
    path = tmp_path / "looks-like.txt"
    path.write_bytes(struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, 1))
    assert recognise(path) is InputKind.PCAP


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\x0a\x0d\x0d\x0a\x1c\0\0\0", InputKind.PCAPNG),
        (b"\x1f\x8b\x08\0", InputKind.GZIP),
        (b"\x28\xb5\x2f\xfd\0", InputKind.ZSTD),
        (b"\x50\x2a\x4d\x18\0", InputKind.ZSTD),
        (b"\x5f\x2a\x4d\x18\0", InputKind.ZSTD),
        (b"\x60\x2a\x4d\x18\0", InputKind.UNKNOWN),
        (b"\x28\xb5\x2f", InputKind.UNKNOWN),
        (b"# mirrorpoint sign-ins v1\nevent_ns\t", InputKind.SIGNINS),
        (b"# mirrorpoint circle v1\r\nevent_ns\t", InputKind.CIRCLE),
        (b"\xef\xbb\xbf# mirrorpoint purchases v1\n", InputKind.PURCHASES),
        (b"# mirrorpoint orders v1", InputKind.ORDERS),
        (b"# mirrorpoint orders v2\n", InputKind.UNKNOWN),
        (b"# mirrorpoint purchases v1 and more\n", InputKind.UNKNOWN),
        (b"", InputKind.UNKNOWN),
        (b"\xa1\xb2\xc3", InputKind.UNKNOWN),
    ],
)
def test_everything_else_by_its_first_bytes(head, kind):
    assert recognise_bytes(head) is kind


@given(st.binary(max_size=80))
def test_any_bytes_are_something(head):
    assert recognise_bytes(head) in InputKind


@given(st.sampled_from(list(InputKind)), st.binary(max_size=20))
def test_what_follows_the_first_line_does_not_matter(kind, tail):
    head = f"# mirrorpoint {kind.value} v1\n".encode()
    assert recognise_bytes(head) is recognise_bytes(head + tail)


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError):
        recognise(tmp_path / "nothing")
