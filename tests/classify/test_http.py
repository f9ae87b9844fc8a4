"""Request heads, chunk framing and host names: kernels against the twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.classify import http_kernels as http
from pipeline.classify import names_kernels as names
from pipeline.classify.state_kernels import HEAD
from pipeline.classify.tls_kernels import BAD, NEVER, NOT_YET, WHOLE
from pipeline.kernels.compile import kernel, records
from pipeline.model.words import Method
from tests.naive import http as naive

OUTCOMES = {NOT_YET: naive.NOT_YET, NEVER: naive.NEVER, BAD: naive.BAD}
HOSTS = {
    names.HOST_NONE: "none",
    names.HOST_NAME: "name",
    names.HOST_ADDRESS: "address",
    names.HOST_INVALID: "invalid",
}


@kernel
def read(data, start, stop, head):
    return http.read_head(data, start, stop, head[0])


@kernel
def starts(data, start, stop):
    return http.starts_head(data, start, stop)


@kernel
def chunk(data, start, stop, head):
    return http.read_chunk_line(data, start, stop, head[0])


@kernel
def trailer(data, start, stop, head):
    return http.read_trailer_line(data, start, stop, head[0])


@kernel
def clean(data, start, stop):
    return names.clean_host(data, start, stop)


@kernel
def hash_name(protocol, data, start, stop):
    return names.name_hash(np.uint64(1), np.uint64(2), protocol, data, start, stop)


def array(raw: bytes) -> np.ndarray:
    """Bytes in the midst of others."""
    return np.frombuffer(b"\xee\xee\xee" + raw + b"GET / HTTP/1.1\r\n\r\n", np.uint8)


def reading(raw: bytes) -> naive.Head | str:
    """What the kernel reads, in the words of the twin."""
    data, found = array(raw), records(HEAD, 1)
    outcome = read(data, 3, 3 + len(raw), found)
    if outcome != WHOLE:
        return OUTCOMES[outcome]
    head = found[0]

    def text(name: str) -> bytes:
        return data[head[name + "_at"] : head[name + "_stop"]].tobytes()

    length = int(head["body_length"])
    return naive.Head(
        size=int(head["stop"]) - 3,
        method=int(head["method"]),
        target=text("target"),
        authority=text("authority"),
        host=text("host"),
        referer=text("referer"),
        hosts_differ=bool(head["disagrees"]),
        length=None if length == http.NO_LENGTH else length,
        chunked=bool(head["chunked"]),
        document=bool(head["document"]),
        upgrades=bool(head["upgrades"]),
    )


def same(found: naive.Head | str, expected: naive.Head | str) -> bool:
    """Equal, up to how the pieces of a folded Host are joined (no name comes of it either way)."""
    if (
        isinstance(found, naive.Head)
        and isinstance(expected, naive.Head)
        and b"\n" in expected.host
    ):
        assert b"\n" in found.host or not expected.host.strip()
        found.host = expected.host
    return found == expected


VALUES = st.sampled_from([
    "shop.example", "", " ", "Shop.Example:8080", "text/html", "*/*", "text/HTML,*/*", "5", "5", "007", "-1", "9" * 16,
    "chunked", "gzip, Chunked", "gzip", "document", "empty", "prefetch", "prerender", "http://a.example/x", "x\x00y", "ü",
])  # fmt: skip
FIELDS = st.sampled_from([
    "Host", "host", "HOST ", "Accept", "Referer", "Content-Length", "content-length", "Transfer-Encoding", "Sec-Fetch-Dest",
    "X-Requested-With", "Upgrade", "Purpose", "Sec-Purpose", "X-Moz", "Cookie", "", "Hos", "X Y", "\tHost",
])  # fmt: skip
COLONS = st.sampled_from([":", ": ", ":\t ", " :", ""])
TARGETS = st.sampled_from([
    "/", "/a.js", "/a.JPG?x=1", "/a.html", "/.png", "/x/y.tar.gz#z", "*", "http://b.example/a.css", "HTTPS://u:p@b.example:8/?q",
    "http://", "b.example:443", "/a b", "/a?b.js", "//x.example/", "/a.js/", "/.", "/ä.woff2", "ftp:/x", "/a.verylong",
])  # fmt: skip


@st.composite
def heads(draw) -> bytes:
    """Request heads of all kinds, in order or nearly."""
    end = draw(st.sampled_from(["\r\n", "\n"]))
    method = draw(
        st.sampled_from(
            [
                "GET",
                "POST",
                "CONNECT",
                "HEAD",
                "PUT",
                "DELETE",
                "OPTIONS",
                "PATCH",
                "M-SEARCH",
                "GE",
                "get",
            ]
        )
    )
    version = draw(
        st.sampled_from(
            ["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "http/1.1", "HTTP/2.0", "RTSP/1.0", ""]
        )
    )
    space = draw(st.sampled_from([" ", " ", "  "]))
    lines = [f"{method}{space}{draw(TARGETS)}{space}{version}"]
    for name, value in draw(st.lists(st.tuples(FIELDS, VALUES), max_size=6)):
        lines.append(name + draw(COLONS) + value)
        if draw(st.integers(0, 9)) == 0:
            lines.append(draw(st.sampled_from([" folded", "\t", " "])))
    before = draw(st.sampled_from(["", "", "\r\n", "\n\n\n\n\n"]))
    raw = bytearray((before + end.join([*lines, "", ""])).encode() + draw(st.binary(max_size=5)))
    for at, byte in draw(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=2)):
        if at < len(raw) and draw(st.integers(0, 3)) == 0:
            raw[at] = byte
    return bytes(raw[: draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])  # fmt: skip


@given(
    st.one_of(
        heads(), st.binary(max_size=40), st.text("GEHTP/1. \r\n:", max_size=40).map(str.encode)
    )
)
@example(b"GET / HTTP/1.1\r\nHost:\r\n\tshop.example\r\n\r\n")
def test_reading_equals_the_twin(raw):
    assert same(reading(raw), naive.read_head(raw))
    assert starts(array(raw), 3, 3 + len(raw)) == naive.starts_head(raw)


@given(heads(), st.data())
def test_a_part_of_a_head_never_becomes_another(raw, data):
    whole = reading(raw)
    if isinstance(whole, naive.Head):
        part = reading(raw[: data.draw(st.integers(1, whole.size - 1))])
        assert part == naive.NOT_YET


@given(
    st.one_of(
        st.binary(max_size=12),
        st.text("0aF;\r\n x", max_size=12).map(str.encode),
        st.just(b"1" * 300),
    )
)
def test_chunk_lines_equal_the_twin(raw):
    data, found = array(raw), records(HEAD, 1)
    outcome = chunk(data, 3, 3 + len(raw), found)
    if outcome == WHOLE:
        read_so_far = (int(found[0]["stop"]) - 3, int(found[0]["body_length"]))
        assert read_so_far == naive.read_chunk_line(raw)
    else:
        assert OUTCOMES[outcome] == naive.read_chunk_line(raw)


@pytest.mark.parametrize(
    ("raw", "stop", "length"), [(b"\r\nX", 2, 0), (b"\n", 1, 0), (b"A: b\r\n\r\n", 6, 4), (b"A: b", None, None)]
)  # fmt: skip
def test_trailer_lines(raw, stop, length):
    found = records(HEAD, 1)
    if trailer(array(raw), 3, 3 + len(raw), found) == WHOLE:
        assert (int(found[0]["stop"]) - 3, int(found[0]["body_length"])) == (stop, length)
    else:
        assert stop is None


@given(st.one_of(
    st.binary(max_size=12),
    st.text("aZ0.-_:[] \t9", max_size=20).map(str.encode),
    st.sampled_from([b"a" * 63 + b".example", b"a" * 64 + b".example", b"a." * 126 + b"a", b"a." * 127 + b"a", b"192.0.2.4", b"::1"]),
    st.ip_addresses().map(lambda a: str(a).encode()),
))  # fmt: skip
def test_cleaning_equals_the_twin(raw):
    data = array(raw)
    kind, start, stop = clean(data, 3, 3 + len(raw))
    found = data[start:stop].tobytes().lower() if kind != names.HOST_NONE else b""
    assert (HOSTS[kind], found) == naive.clean_host(raw)


@given(st.ip_addresses(), st.sampled_from(["{}", "{}:80", "[{}]", "[{}]:8080"]))
def test_addresses_are_told_from_names(address, form):
    if address.version == 6 and not form.startswith("[") and ":80" in form:
        return
    raw = form.format(address).encode()
    kind, _, _ = clean(array(raw), 3, 3 + len(raw))
    assert HOSTS[kind] == "address"


@given(st.text("abAB", max_size=4), st.text("abAB", max_size=4))
def test_names_are_equal_where_their_hashes_are(one, other):
    hashes = [hash_name(1, array(t.encode()), 3, 3 + len(t)) for t in (one, other)]
    assert (hashes[0] == hashes[1]) == (one.lower() == other.lower())


@pytest.mark.parametrize(
    ("fields", "document"),
    [
        ([], True),
        (["Accept: text/html,application/xhtml+xml"], True),
        (["Accept: image/avif,*/*"], False),
        (["Accept: text/html", "X-Requested-With: XMLHttpRequest"], False),
        (["Accept: text/html", "Sec-Fetch-Dest: document"], True),
        (["Accept: text/html", "Sec-Fetch-Dest: iframe"], False),
        (["Accept: text/html", "Sec-Purpose: prefetch;prerender"], False),
        (["Accept: text/html", "Purpose: prefetch"], False),
    ],
)
def test_what_is_a_document(fields, document):
    raw = "\r\n".join(["GET /offer HTTP/1.1", "Host: shop.example", *fields, "", ""]).encode()
    head = reading(raw)
    assert isinstance(head, naive.Head)
    assert head.document == document


@pytest.mark.parametrize("target", ["/logo.png", "/app.js?v=2", "/fonts/a.woff2#x"])
def test_parts_of_pages_are_no_documents_by_their_ending(target):
    head = reading(f"GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n".encode())
    assert isinstance(head, naive.Head)
    assert not head.document


def test_every_known_method_is_told():
    for method in Method:
        if method not in (Method.NONE, Method.OTHER):
            head = reading(f"{method.name} /x HTTP/1.1\r\n\r\n".encode())
            assert isinstance(head, naive.Head)
            assert head.method == method


@given(st.integers(0, 2**64 - 1), st.text("abcm", min_size=1, max_size=3))
def test_no_two_protocols_give_the_same_hash_to_names_that_begin_alike(key, rest):
    """Whatever the key is: a letter is worth as much as the number of a protocol."""
    texts = [letter + rest for letter in "abcdefgh"]
    key0 = np.uint64(key)
    found = [
        names.name_hash(key0, np.uint64(2), protocol, array(t.encode()), 3, 3 + len(t))
        for protocol in (1, 2, 3)
        for t in texts
    ]
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    ("fields", "host", "differ"),
    [
        (["Host: a.example", "Host: A.example:80"], b"a.example", False),
        (["Host: a.example", "Host:", " a.example"], b"a.example", False),
        (["Host:", "Host: b.example"], b"b.example", False),
        (["Host: a.example", "Host: "], b"a.example", False),
        (["Host: a.example", "Host: b.example"], b"a.example", True),
        (["Host: a.example:80", "Host: a.example:81"], b"a.example:80", False),
    ],
)
def test_a_host_that_is_given_twice_is_one_where_both_name_it(fields, host, differ):
    head = reading("\r\n".join(["GET / HTTP/1.1", *fields, "", ""]).encode())
    assert (head.host, head.hosts_differ) == (host, differ)


def test_no_coding_at_all_is_no_coding():
    lines = ["POST / HTTP/1.1", "Host: a.example", "Transfer-Encoding: Identity"]
    head = reading("\r\n".join([*lines, "Content-Length: 5", "", ""]).encode())
    assert (head.length, head.chunked) == (5, False)
