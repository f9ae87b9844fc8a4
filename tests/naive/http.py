"""HTTP/1 request heads in plain Python: lines, fields, and what they say (RFC 9112), and host
names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NOT_YET, NEVER, BAD = "not yet", "never", "bad"
METHODS = {
    b"GET": 1,
    b"HEAD": 2,
    b"POST": 3,
    b"PUT": 4,
    b"DELETE": 5,
    b"OPTIONS": 6,
    b"CONNECT": 7,
    b"PATCH": 8,
}
# Endings of scripts, styles and data, pictures, letters, sound and film, and what is downloaded.
PARTS = set(
    b"""js mjs css map json xml txt wasm png jpg jpeg gif svg ico webp avif bmp woff woff2 ttf otf eot
    mp3 mp4 m4a m4s m4v webm ogg ts m3u8 mpd swf zip gz apk exe msi bin dat pdf crl crt""".split()
)
PREFETCH_FIELDS = (b"purpose", b"sec-purpose", b"x-moz")
LABEL = rb"[a-z0-9_-]{1,63}"


@dataclass
class Head:
    """A request head. `length` is None without a length and -2 for one that cannot be believed."""

    size: int
    method: int
    target: bytes
    authority: bytes = b""
    host: bytes = b""
    referer: bytes = b""
    hosts_differ: bool = False
    length: int | None = None
    chunked: bool = False
    document: bool = False
    upgrades: bool = False


def starts_head(raw: bytes) -> bool:
    """Could a head start so: up to four line ends, capital letters, a space and no control?"""
    ends = re.match(rb"[\r\n]{0,4}", raw)
    assert ends
    rest = raw[ends.end() :]
    if not rest:
        return bool(raw)
    return bool(
        re.match(rb"[A-Z_-]{1,20}\Z", rest)
        or re.match(rb"[A-Z_-]{3,20} ([^\x00-\x1f]|\Z)", rest, re.DOTALL)
    )


def front_of_head(raw: bytes) -> bytes | None:
    """The first 64 bytes of a head, or all of a shorter one; None while they are not there."""
    letters = len(raw) - len(raw.lstrip(b"\r\n"))
    end = re.compile(rb"\n\r?\n").search(raw, letters)
    if end and end.end() <= 64:
        return raw[: end.end()]
    return raw[:64] if len(raw) >= 64 else None


def read_head(raw: bytes) -> Head | str:
    """The head that starts `raw`, or NOT_YET or NEVER."""
    if not starts_head(raw):
        return NEVER
    body = raw.lstrip(b"\r\n")
    first, *lines = body.split(b"\n")
    if not lines:
        return NOT_YET
    head = _request_line(first.removesuffix(b"\r"))
    if head is None:
        return NEVER
    size = len(raw) - len(body) + len(first) + 1
    fields: list[list[bytes]] = []
    for line in lines[:-1]:  # what follows the last line feed is no line
        size += len(line) + 1
        text = line.removesuffix(b"\r")
        if not text:
            head.size = size
            _read_fields(head, fields)
            return head
        if text[:1] in (b" ", b"\t"):
            if fields:
                fields[-1].append(line)
        else:
            fields.append([line])
    return NOT_YET


def _request_line(line: bytes) -> Head | None:
    found = re.fullmatch(rb"([A-Z_-]+) +(.*?) *(?: HTTP/1\.[0-9])", line, re.DOTALL | re.IGNORECASE)
    if not found or not found[2] or len(line) < 13 or re.search(rb"[\x00-\x1f]", found[2]):
        return None
    method, target = found[1], found[2]
    head = Head(0, METHODS.get(method, 9), target)
    if head.method == 7:
        head.authority = target
    elif absolute := re.match(rb"[A-Za-z]+://([^/?#]*)", target, re.DOTALL):
        head.authority = absolute[1].rpartition(b"@")[2]
    return head


def _read_fields(head: Head, fields: list[list[bytes]]) -> None:
    accepts: list[bytes] = []
    is_document = head.method == 1
    hosts: list[bytes] = []
    for first, *folded in fields:
        text = first.removesuffix(b"\r")
        name, colon, value = text.partition(b":")
        if not colon:
            continue
        while name and name[-1] <= 32:
            name = name[:-1]
        name, value = name.lower(), value.strip(b" \t")
        if name == b"host":
            # What is folded into a Host keeps its line end, and no name has one in it.
            if hosts and clean_host(hosts[0])[0] != "none":
                hosts.append(value)
            else:
                hosts = [b"\n".join([value, *folded])]
        elif name == b"accept":
            accepts.append(value.lower())
        elif name == b"referer":
            head.referer = value
        elif name == b"upgrade":
            head.upgrades = True
        elif name == b"content-length":
            for one in value.split(b","):
                good = re.fullmatch(rb"[ \t]*([0-9]{1,15})[ \t]*", one)
                number = int(good[1]) if good else -2
                head.length = number if head.length in (None, number) else -2
        elif name == b"transfer-encoding":
            if b"chunked" in value.lower():
                head.chunked = True
            elif value.lower() != b"identity":
                head.length = -2
        elif name == b"sec-fetch-dest":
            is_document &= value.lower() == b"document"
        elif name == b"x-requested-with":
            is_document = False
        elif name in PREFETCH_FIELDS:
            is_document &= not re.search(rb"prefetch|prerender", value.lower())
    head.host = hosts[0] if hosts else b""
    names = [clean_host(host) for host in hosts]
    head.hosts_differ = any(n[0] != "none" and n[1] != names[0][1] for n in names[1:])
    if accepts:
        is_document &= any(b"text/html" in a for a in accepts)
    else:
        is_document &= not is_part_of_page(head.target)
    head.document = is_document


def is_part_of_page(target: bytes) -> bool:
    """Does the path end like a picture, a script or the like?"""
    path = re.split(rb"[?#]", target)[0].lower()
    found = re.search(rb"\.([^./]{1,5})\Z", path)
    return bool(found) and found[1] in PARTS


def read_chunk_line(raw: bytes) -> tuple[int, int] | str:
    """(where a chunk's size line ends, the chunk's size), or NOT_YET or BAD."""
    line, feed, _ = raw[:256].partition(b"\n")
    found = re.match(rb"([0-9A-Fa-f]*)", line)
    assert found
    digits, rest = found[1], line[found.end() :]
    if len(digits) > 7 or (rest and (not digits or rest[:1] not in b";\r \t")):
        return BAD
    if not feed:
        return BAD if len(raw) >= 256 else NOT_YET
    return (len(line) + 1, int(digits, 16)) if digits else BAD


def clean_host(raw: bytes) -> tuple[str, bytes]:
    """("none", "name", "address" or "invalid", the cleaned text in lower case)."""
    host = raw.strip(b" \t\n\r\x0b\x0c").lower()
    if host.startswith(b"["):
        host = host[1:].split(b"]")[0]
    elif found := re.fullmatch(rb"([^:]*):[0-9]*", host, re.DOTALL):
        host = found[1]
    host = host.rstrip(b".")
    if not host:
        return "none", b""
    if _is_ipv4(host) or re.fullmatch(rb"(?=.{1,45}\Z)[0-9a-f.]*:[0-9a-f.]*:[0-9a-f.:]*", host):
        return "address", host
    if len(host) <= 253 and re.fullmatch(rb"%s(\.%s)*" % (LABEL, LABEL), host):
        return "name", host
    return "invalid", host


def _is_ipv4(host: bytes) -> bool:
    parts = host.split(b".")
    return len(parts) == 4 and all(re.fullmatch(rb"[0-9]{1,3}", p) and int(p) <= 255 for p in parts)
