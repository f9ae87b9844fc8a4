"""What browsers say first: request heads and client hellos for forged traffic.

A document request carries the headers that a current browser sends over plain HTTP, a cookie
among them, so that a replay shows that nobody keeps it. A client hello has the extensions of a
browser in a fixed order (RFC 8446, section 4.1.2); with `post_quantum` it offers X25519MLKEM768,
whose share of 1,216 bytes makes the hello larger than a packet.
"""

from __future__ import annotations

import random
import struct

AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
DOCUMENT = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
COOKIE = "sid=canary-cookie-7f3a; consent=1"
CIPHERS = bytes.fromhex("130113031302c02bc02fcca9cca8c02cc030c013c014009c009d002f0035")
SIGNATURES = bytes.fromhex("0403050306030804080508060401050106010203")
MLKEM, X25519, P256 = 0x11EC, 0x001D, 0x0017


def document(host: str, path: str = "/", referer: str = "") -> bytes:
    """A top-level GET of a page."""
    return request("GET", host, path, DOCUMENT, referer, "Upgrade-Insecure-Requests: 1")


def picture(host: str, path: str) -> bytes:
    """A GET of a picture within a page."""
    return request("GET", host, path, "image/avif,image/webp,*/*;q=0.8", f"http://{host}/")


def script_call(host: str, path: str) -> bytes:
    """A GET by a script within a page."""
    return request("GET", host, path, "application/json", "", "X-Requested-With: XMLHttpRequest")


def form(host: str, path: str, body: bytes) -> bytes:
    """A POST of a form; the body is nobody's business."""
    head = request("POST", host, path, DOCUMENT, "", f"Content-Length: {len(body)}")
    return head + body


def request(method: str, host: str, path: str, accept: str, referer: str = "", *more: str) -> bytes:
    """One request head."""
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {host}",
        f"User-Agent: {AGENT}",
        f"Accept: {accept}",
        "Accept-Language: en-GB,en;q=0.5",
        "Accept-Encoding: gzip, deflate",
        *([f"Referer: {referer}"] if referer else []),
        "Connection: keep-alive",
        f"Cookie: {COOKIE}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answer(status: str = "200 OK", body: bytes = b"") -> bytes:
    """The start of a server's answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def client_hello(host: str, rng: random.Random, post_quantum: bool = False) -> bytes:
    """A TLS record with a client hello that names `host`."""
    groups = [*([MLKEM] if post_quantum else []), X25519, P256]
    shares = b"".join(
        struct.pack(">H", group) + _counted(2, rng.randbytes(1216 if group == MLKEM else 32))
        for group in groups
        if group != P256
    )
    extensions = b"".join(
        struct.pack(">H", number) + _counted(2, content)
        for number, content in (
            (0x0000, _counted(2, b"\0" + _counted(2, host.encode()))),
            (0x0017, b""),
            (0xFF01, b"\0"),
            (0x000A, _counted(2, struct.pack(f">{len(groups)}H", *groups))),
            (0x000B, b"\x01\0"),
            (0x0010, _counted(2, _counted(1, b"h2") + _counted(1, b"http/1.1"))),
            (0x0005, b"\x01\0\0\0\0"),
            (0x0033, _counted(2, shares)),
            (0x002B, _counted(1, b"\x03\x04\x03\x03")),
            (0x000D, _counted(2, SIGNATURES)),
            (0x002D, b"\x01\x01"),
        )
    )
    body = b"\x03\x03" + rng.randbytes(32) + _counted(1, rng.randbytes(32))
    body += _counted(2, CIPHERS) + b"\x01\0" + _counted(2, extensions)
    return b"\x16\x03\x01" + _counted(2, b"\x01" + _counted(3, body))


def server_hello(rng: random.Random) -> bytes:
    """A TLS record with a server hello."""
    body = b"\x03\x03" + rng.randbytes(32) + b"\0\x13\x01\0" + _counted(2, b"\0\x2b\0\x02\x03\x04")
    return b"\x16\x03\x03" + _counted(2, b"\x02" + _counted(3, body))


def _counted(width: int, content: bytes) -> bytes:
    return len(content).to_bytes(width, "big") + content
