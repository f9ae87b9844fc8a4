"""Client hellos: kernels against the twin, on whole ones, cut ones, changed ones and plain noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.classify import tls_kernels as tls
from pipeline.classify.state_kernels import HELLO
from pipeline.kernels.compile import kernel, records
from tests.classify import frames
from tests.naive import tls as naive

OUTCOMES = {
    tls.NOT_YET: naive.NOT_YET,
    tls.NEVER: naive.NEVER,
    tls.BAD: naive.BAD,
    tls.TOO_LONG: naive.TOO_LONG,
    tls.FROM_SERVER: naive.FROM_SERVER,
}
LONGEST = 2000


@kernel
def gather(data, start, stop, scratch, longest, hello):
    return tls.gather_hello(data, start, stop, scratch, longest, hello[0])


@kernel
def read(data, start, stop, hello):
    return tls.read_hello(data, start, stop, hello[0])


@kernel
def starts(data, start, stop):
    return tls.starts_hello(data, start, stop)


@kernel
def copy(source, start, stop, target, at):
    return tls.copy_alpn(source, start, stop, target, at)


def array(raw: bytes, before: int = 3) -> np.ndarray:
    """Bytes in the midst of others, so that a place is not mistaken for an index."""
    return np.frombuffer(b"\xee" * before + raw + b"\xee" * 9, np.uint8)


def gathered(raw: bytes) -> tuple[bytes, int] | str:
    """What the kernel gathers, in the words of the twin."""
    hello, scratch, data = records(HELLO, 1), np.zeros(LONGEST, np.uint8), array(raw)
    outcome = gather(data, 3, 3 + len(raw), scratch, LONGEST, hello)
    if outcome != tls.WHOLE:
        return OUTCOMES[outcome]
    found = hello[0]
    source = scratch if found["in_scratch"] else data
    body = source[found["body_at"] : found["body_stop"]].tobytes()
    return body, int(found["records_stop"]) - 3


def reading(body: bytes) -> naive.Hello | None:
    """What the kernel reads in a body."""
    hello, data = records(HELLO, 1), array(body)
    if read(data, 3, 3 + len(body), hello) != tls.WHOLE:
        return None
    found = hello[0]
    offered = data[found["alpn_at"] : found["alpn_stop"]].tobytes()
    names = []
    while offered:
        names.append(offered[1 : 1 + offered[0]])
        offered = offered[1 + offered[0] :]
    return naive.Hello(data[found["name_at"] : found["name_stop"]].tobytes(), names)


def changed(raw: bytes, draw) -> bytes:
    """The same bytes with a few exchanged, and perhaps an end cut off."""
    out = bytearray(raw)
    for at, byte in draw(st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=3)):
        if at < len(out):
            out[at] = byte
    return bytes(out[: draw(st.one_of(st.just(len(out)), st.integers(0, len(out))))])


@st.composite
def hellos(draw) -> bytes:
    """Hellos of several records, some of them changed, some with something behind them."""
    raw = frames.client_hello(
        draw(st.sampled_from([None, b"", b"shop.example", b"a" * 300])),
        protocols=draw(st.lists(st.binary(max_size=5), max_size=3)),
        padding=draw(st.sampled_from([0, 100, 1800, 2000])),
        sizes=draw(st.lists(st.integers(1, 200), max_size=4)),
    )
    return changed(raw, draw) + draw(st.binary(max_size=10))


@given(
    st.one_of(
        hellos(), st.binary(max_size=40), st.binary(max_size=20).map(lambda b: b"\x16\x03\x01" + b)
    )
)
def test_gathering_equals_the_twin(raw):
    assert gathered(raw) == naive.gather_hello(raw, LONGEST)
    assert starts(array(raw), 3, 3 + len(raw)) == (bool(raw) and naive.starts_hello(raw))


@st.composite
def bodies(draw) -> bytes:
    """Bodies of hellos with extensions of all kinds, some of them changed."""
    names = st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=9)), max_size=3)
    one = st.one_of(
        st.builds(frames.server_name, st.binary(max_size=9)),
        names.map(lambda n: frames.extension(0, frames.vector(2, b"".join(bytes([t]) + frames.vector(2, v) for t, v in n)))),
        st.lists(st.binary(max_size=9), max_size=3).map(lambda n: frames.alpn(*n)),
        st.builds(frames.extension, st.integers(0, 20), st.binary(max_size=9)),
        st.just(frames.extension(0xFE0D, bytes(9))),
    )  # fmt: skip
    extensions = draw(st.one_of(st.none(), st.lists(one, max_size=5)))
    body = frames.hello_body(extensions, draw(st.sampled_from([b"", bytes(32)])))
    return changed(body, draw)


@given(st.one_of(bodies(), st.binary(max_size=80)))
def test_reading_equals_the_twin(body):
    assert reading(body) == naive.read_hello(body)


@given(st.lists(st.binary(max_size=6), max_size=4))
def test_protocols_as_text_equal_the_twin(names):
    raw = b"".join(frames.vector(1, n) for n in names)
    target = np.zeros(100, np.uint8)
    stop = copy(array(raw), 3, 3 + len(raw), target, 5)
    assert target[5:stop].tobytes() == naive.alpn_text(names)


@given(st.lists(st.integers(1, 90), max_size=6), st.booleans())
def test_records_may_be_cut_anywhere(sizes, grease):
    protocols = [b"\x1a\x1a", b"h2"] if grease else [b"h2"]
    found = gathered(frames.client_hello("cut.example", protocols=protocols, sizes=sizes))
    assert isinstance(found, tuple)
    hello = reading(found[0])
    assert hello is not None
    assert hello.name == b"cut.example"
    assert naive.alpn_text(hello.alpn) == b"h2"


@given(st.data())
def test_every_part_of_a_hello_is_not_yet_one(data):
    raw = frames.client_hello("part.example", sizes=[50, 70])
    assert gathered(raw[: data.draw(st.integers(1, len(raw) - 1))]) == naive.NOT_YET


def test_a_hello_that_does_not_fit_is_told_early():
    raw = frames.client_hello(padding=5000)
    assert gathered(raw[:9]) == naive.TOO_LONG


@pytest.mark.parametrize("name", [b"", b"\0.example"])
def test_the_name_is_what_the_extension_says(name):
    assert reading(frames.hello_body([frames.server_name(name)])) == naive.Hello(name, [])


def test_a_hello_whose_lengths_do_not_add_up_is_bad_as_a_whole():
    body = frames.hello_body([frames.server_name(b"shop.example")])
    assert reading(body + b"\0") is None
