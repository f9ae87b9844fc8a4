"""QUIC's long header, the opening of an Initial, and frames, after RFC 9000 and 9001, in plain
Python over `cryptography`; and the hello of Google's QUIC."""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hmac import HMAC

SHORT, BAD = "too short", "bad"
SALTS = {
    "v1": "38762cf7f55934b34d179ae6a4c80cadccbb7f0a",
    "v2": "0dede3def700a6db819381be6e269dcbf9bd2ed9",
    "29": "afbfec289993d24c9e9786f19c6111e04390a899",
    "23": "c3eef712c72ebb5a11a7d2432bb46365bef9f502",
    "22": "7fbcdb0e7c66bbe9193a96cd21519ebd7a02644a",
    "Q050": "504574efd066fe2f9d945cfcdbd3a7f0d3b56b45",
    "T050": "7ff579e5acd072915580304c43a2367c60488310",
    "T051": "7a4edef4e7ccee5fa4506c19124fc8ccda6e033d",
}


def salt_of(version: int) -> str | None:
    """The name of a version's salt."""
    text = version.to_bytes(4, "big")
    if text in (b"Q050", b"T050", b"T051"):
        return text.decode()
    if version == 0x6B3343CF:
        return "v2"
    if version == 0xFACEB003 or version == 1 or all(b & 15 == 10 for b in text):
        return "v1"
    if text[:3] == bytes.fromhex("faceb0"):
        return "22" if text[3] == 1 else "23"
    if text[:3] == b"\xff\0\0":
        for least, salt in ((33, "v1"), (29, "29"), (23, "23"), (22, "22")):
            if text[3] >= least:
                return salt if text[3] <= 34 else None
    return None


def is_quic(raw: bytes) -> bool:
    """Does a datagram begin with a QUIC long header of a version that exists, or negotiate one?"""
    if len(raw) < 7 or not raw[0] & 0x80:
        return False
    version = raw[1:5]
    if version == bytes(4):
        one, other = raw[5], raw[6 + raw[5] : 7 + raw[5]]
        rest = raw[7 + one + other[0] :] if other else b""
        return len(rest) >= 4 and len(rest) % 4 == 0
    return (
        version in (b"\0\0\0\1", bytes.fromhex("6b3343cf"))
        or version[:3] in (b"\xff\0\0", bytes.fromhex("faceb0"))
        or version[:2] in (b"Q0", b"T0")
        or all(b & 15 == 10 for b in version)
    )


class Cursor:
    """Takes bytes from the front; more than there are is an IndexError."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def take(self, size: int) -> bytes:
        if size > len(self.raw) - self.at:
            raise IndexError
        self.at += size
        return self.raw[self.at - size : self.at]

    def number(self) -> int:
        """A variable-length integer."""
        first = self.take(1)[0]
        rest = self.take((1 << (first >> 6)) - 1)
        return int.from_bytes(bytes([first & 0x3F]) + rest, "big")


@dataclass(frozen=True)
class Long:
    """A packet with a long header; `number_at` counts from its first byte."""

    kind: str
    salt: str
    dcid: bytes
    raw: bytes
    number_at: int = 0


def read_long(raw: bytes) -> Long | str | None:
    """The packet that `raw` begins with; None for one behind which nothing is read."""
    if len(raw) < 7:
        return SHORT
    salt = salt_of(int.from_bytes(raw[1:5], "big"))
    if salt is None:
        return None
    if raw[5] > 20:
        return BAD
    cursor = Cursor(raw)
    try:
        cursor.take(6)
        dcid = cursor.take(raw[5])
        size = cursor.take(1)[0]
        if size > 20:
            return BAD
        cursor.at += size  # that it lies beyond the end shows where the next is read
        number = raw[0] >> 4 & 3
        kind = "i0hr"[number] if salt != "v2" else "ri0h"[number]
        if kind == "r":
            return None
        if kind == "i":
            cursor.take(cursor.number())
        length = cursor.number()
        number_at = cursor.at
        cursor.take(length)
    except IndexError:
        return SHORT
    if kind == "i" and length < 20:
        return BAD
    return Long(kind, salt, dcid, raw[: cursor.at], number_at)


def says_initial(raw: bytes) -> bool:
    """Does a packet with a long header, perhaps cut off, say that it is an Initial?"""
    if len(raw) < 5:
        return False
    salt = salt_of(int.from_bytes(raw[1:5], "big"))
    return salt is not None and raw[0] >> 4 & 3 == (1 if salt == "v2" else 0)


def hmac(key: bytes, text: bytes) -> bytes:
    """HMAC-SHA256."""
    mac = HMAC(key, hashes.SHA256())
    mac.update(text)
    return mac.finalize()


@functools.lru_cache(512)
def client_keys(salt: str, dcid: bytes) -> tuple[bytes, bytes, bytes]:
    """Key, vector and header key of the client's Initials."""

    def expand(secret: bytes, label: str, size: int) -> bytes:
        name = b"tls13 " + label.encode()
        return hmac(secret, struct.pack(">HB", size, len(name)) + name + b"\0\1")[:size]

    secret = expand(hmac(bytes.fromhex(SALTS[salt]), dcid), "client in", 32)
    word = "quicv2" if salt == "v2" else "quic"
    return expand(secret, f"{word} key", 16), expand(secret, f"{word} iv", 12), expand(secret, f"{word} hp", 16)  # fmt: skip


def full_number(largest: int, truncated: int, size: int) -> int:
    """The packet number nearest to the one after `largest` that ends so; lower ones at 0 only."""
    window = 1 << 8 * size
    base = (largest + 1) // window * window
    near = [
        n
        for n in (base - window + truncated, base + truncated, base + window + truncated)
        if n >= 0
    ]
    return min(near, key=lambda n: (abs(n - largest - 1), -n))


def open_initial(
    packet: Long, keys: tuple[bytes, bytes, bytes], largest: int
) -> tuple[bytes, int] | None:
    """Frames and number of an Initial, if these keys open it."""
    key, iv, hp = keys
    raw, at = bytearray(packet.raw), packet.number_at
    mask = Cipher(algorithms.AES(hp), modes.ECB()).encryptor().update(bytes(raw[at + 4 : at + 20]))
    raw[0] ^= mask[0] & 15
    size = (raw[0] & 3) + 1
    for i in range(size):
        raw[at + i] ^= mask[1 + i]
    number = full_number(largest, int.from_bytes(raw[at : at + size], "big"), size)
    nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(12, "big")
    body = at + size
    try:
        return AESGCM(key).decrypt(nonce, bytes(raw[body:]), bytes(raw[:body])), number
    except InvalidTag:
        return None


def crypto_frames(plain: bytes, google: bool) -> tuple[list[tuple[int, bytes]], bool]:
    """(offset, data) of the CRYPTO frames up to the first frame that cannot be read; was there
    none?
    """
    found: list[tuple[int, bytes]] = []
    cursor = Cursor(plain)
    try:
        while cursor.at < len(plain):
            kind = cursor.take(1)[0]
            if kind == (8 if google else 6):
                offset = cursor.number()
                found.append((offset, cursor.take(cursor.number())))
            elif kind in (2, 3) and not google:
                cursor.number(), cursor.number()
                ranges = cursor.number()
                for _ in range(1 + 2 * ranges + 3 * (kind == 3)):
                    cursor.number()
            elif kind in (0x1C, 0x1D) and not google:
                for _ in range(2 if kind == 0x1C else 1):
                    cursor.number()
                cursor.take(cursor.number())
            elif kind != 0 and kind != (7 if google else 1):
                return found, False
    except IndexError:
        return found, False
    return found, True


# Google's, before it was sealed.


def google_frames(raw: bytes) -> bytes | None:
    """The frames of a client's packet of Q000 to Q046."""
    if len(raw) < 14:
        return None
    long = raw[0] >= 0x80
    name = raw[1:5] if long else raw[9:13]
    if name[:2] != b"Q0" or not name[2:].isdigit():
        return None
    version = int(name[2:])
    if long:
        ids = [n + 3 if n else 0 for n in (raw[5] >> 4, raw[5] & 15)]
        number = 4 if version == 44 else (raw[0] & 3) + 1
        return raw[6 + sum(ids) + number + 12 :] if version in (44, 46) else None
    if raw[0] & 9 != 9 or version > 43:
        return None
    number = (1, 2, 4, 6)[raw[0] >> 4 & 3]
    return raw[13 + number + 12 + (version <= 33) :]


def google_hello(frames: bytes) -> bytes | None:
    """What begins with the CHLO of the first STREAM frame."""
    frames = frames.lstrip(b"\0\7")
    if not frames or not frames[0] & 0x80:
        return None
    offset = frames[0] >> 2 & 7
    rest = frames[
        2 + (frames[0] & 3) + (offset + 1 if offset else 0) + 2 * bool(frames[0] & 0x20) :
    ]
    return rest if rest[:4] == b"CHLO" else None


def chlo_length(raw: bytes) -> int | None:
    """How long a CHLO is: 0 while that is not known, None where it is none."""
    if raw[:4] != b"CHLO"[: len(raw)] and len(raw) >= 4:
        return None
    if len(raw) < 8:
        return 0
    (tags,) = struct.unpack_from("<H", raw, 4)
    if not 1 <= tags <= 128:
        return None
    if len(raw) < 8 + 8 * tags:
        return 0
    return 8 + 8 * tags + struct.unpack_from("<I", raw, 4 + 8 * tags)[0]


def chlo_name(raw: bytes) -> bytes | None:
    """The server name of a whole CHLO, empty for none; None where it is not whole, or nonsense."""
    length = chlo_length(raw)
    if not length or length > len(raw):
        return None
    tags = struct.unpack_from("<H", raw, 4)[0]
    values, begin, name = raw[8 + 8 * tags :], 0, b""
    for number in range(tags):
        tag, end = struct.unpack_from("<4sI", raw, 8 + 8 * number)
        if end < begin or end > len(values):
            return None
        if tag == b"SNI\0":
            name = values[begin:end]
        begin = end
    return name
