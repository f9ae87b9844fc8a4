"""Forged QUIC: Initials sealed with `cryptography`, frame by frame, and Google's packets before it.

Whoever forges says everything: version, connection ids, keys of another id than the one in the
header, packet number and its size, frames in any order, lengths that lie.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

V1, V2, DRAFT_23, DRAFT_27, DRAFT_29, DRAFT_34 = (
    1, 0x6B3343CF, 0xFF000017, 0xFF00001B, 0xFF00001D, 0xFF000022,
)  # fmt: skip
MVFST, MVFST_V1, MVFST_OLD, GREASE = 0xFACEB002, 0xFACEB003, 0xFACEB001, 0x1A2A3A4A
DRAFT_22 = 0xFF000016
Q043, Q046, Q050, T051 = (int.from_bytes(v, "big") for v in (b"Q043", b"Q046", b"Q050", b"T051"))
SALTS = {
    "38762cf7f55934b34d179ae6a4c80cadccbb7f0a": (V1, DRAFT_34, MVFST_V1, GREASE),
    "0dede3def700a6db819381be6e269dcbf9bd2ed9": (V2,),
    "afbfec289993d24c9e9786f19c6111e04390a899": (DRAFT_29,),
    "c3eef712c72ebb5a11a7d2432bb46365bef9f502": (DRAFT_23, DRAFT_27, MVFST),
    "7fbcdb0e7c66bbe9193a96cd21519ebd7a02644a": (DRAFT_22, MVFST_OLD),
    "504574efd066fe2f9d945cfcdbd3a7f0d3b56b45": (Q050,),
    "7a4edef4e7ccee5fa4506c19124fc8ccda6e033d": (T051,),
}
SALT_OF = {version: bytes.fromhex(salt) for salt, versions in SALTS.items() for version in versions}
INITIAL, ZERO_RTT, HANDSHAKE, RETRY = range(4)
PING = b"\x01"


@dataclass(frozen=True)
class Keys:
    """What seals an Initial of one side."""

    key: bytes
    iv: bytes
    hp: bytes


def expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label without a context."""
    label = b"tls13 " + label
    info = struct.pack(">HB", size, len(label)) + label + b"\0"
    return HKDFExpand(hashes.SHA256(), size, info).derive(secret)


def keys_of(version: int, first_id: bytes, server: bool = False) -> Keys:
    """The keys of one side's Initials, by the client's first destination connection id."""
    mac = hmac.HMAC(SALT_OF[version], hashes.SHA256())
    mac.update(first_id)
    secret = expand(mac.finalize(), b"server in" if server else b"client in", 32)
    word = b"quicv2 " if version == V2 else b"quic "
    return Keys(*(expand(secret, word + w, n) for w, n in ((b"key", 16), (b"iv", 12), (b"hp", 16))))


def varint(value: int, size: int = 0) -> bytes:
    """An integer in `size` bytes, or as few as it needs."""
    for power in range(4):
        if size in (0, 1 << power) and value < 1 << (8 * (1 << power) - 2):
            return (value | power << (8 * (1 << power) - 2)).to_bytes(1 << power, "big")
    raise ValueError(value)


def crypto(offset: int, data: bytes, kind: int = 6) -> bytes:
    """A CRYPTO frame; Google's has another number."""
    return varint(kind) + varint(offset) + varint(len(data)) + data


def ack(largest: int = 3, ranges: Sequence[tuple[int, int]] = (), counts: bool = False) -> bytes:
    """An ACK frame, with ranges and, if asked, congestion counts."""
    pairs = b"".join(varint(n) for pair in ranges for n in pair)
    head = varint(largest) + varint(25) + varint(len(ranges)) + varint(0)
    return bytes([3 if counts else 2]) + head + pairs + (varint(1) * 3 if counts else b"")


def close(reason: bytes = b"no", application: bool = False) -> bytes:
    """A CONNECTION_CLOSE frame."""
    frame = b"" if application else varint(6)
    return (
        bytes([0x1D if application else 0x1C]) + varint(10) + frame + varint(len(reason)) + reason
    )


def first_byte(version: int, kind: int, low: int = 0) -> int:
    """The first byte of a long header; version 2 numbers its types anew."""
    number = (kind + 1) & 3 if version == V2 else kind
    return 0xC0 | number << 4 | low


def header(version: int, kind: int, dcid: bytes, scid: bytes, low: int = 0) -> bytes:
    """A long header up to its ids."""
    ids = bytes([len(dcid)]) + dcid + bytes([len(scid)]) + scid
    return bytes([first_byte(version, kind, low)]) + struct.pack(">I", version) + ids


def initial(
    frames: bytes,
    *,
    version: int = V1,
    dcid: bytes = b"\x83\x94\xc8\xf0\x3e\x51\x57\x08",
    scid: bytes = b"",
    token: bytes = b"",
    number: int = 0,
    number_size: int = 4,
    first_id: bytes | None = None,
    server: bool = False,
    pad_to: int = 0,
    length: int | None = None,
) -> bytes:
    """A sealed Initial, padded within. `first_id` tells the keys, if not the destination id;
    `length` is what the header claims in place of the truth.
    """
    keys = keys_of(version, dcid if first_id is None else first_id, server)
    head = header(version, INITIAL, dcid, scid, number_size - 1) + varint(len(token)) + token
    without = len(head) + 2 + number_size + 16
    frames += bytes(max(pad_to - without - len(frames), 4 - number_size - len(frames), 0))
    size = number_size + len(frames) + 16
    head += varint(size if length is None else length, 2 if size < 1 << 14 else 4)
    sent = (number & ((1 << 8 * number_size) - 1)).to_bytes(number_size, "big")
    nonce = bytes(a ^ b for a, b in zip(keys.iv, number.to_bytes(12, "big"), strict=True))
    sealed = AESGCM(keys.key).encrypt(nonce, frames, head + sent)
    sample = (sent + sealed)[4:20]
    ecb = Cipher(algorithms.AES(keys.hp), modes.ECB()).encryptor()
    mask = ecb.update(sample)
    shown = bytes(a ^ b for a, b in zip(sent, mask[1:], strict=False))
    return bytes([head[0] ^ (mask[0] & 15)]) + head[1:] + shown + sealed


def other(kind: int, *, version: int = V1, dcid: bytes = b"", body: bytes = bytes(40)) -> bytes:
    """A 0-RTT or Handshake packet (or a Retry, which has no length) that nobody here can open."""
    head = header(version, kind, dcid, b"\x01\x02")
    return head + body if kind == RETRY else head + varint(len(body)) + body


def negotiation(versions: Iterable[int] = (V1,)) -> bytes:
    """A server's version negotiation."""
    return b"\x80\0\0\0\0\x01\x07\x02\x08\x09" + b"".join(struct.pack(">I", v) for v in versions)


def chlo(name: bytes | None = b"shop.example", pad: int = 200) -> bytes:
    """The client hello of Google's QUIC: tags and where their values end."""
    values = [(b"PAD\0", bytes(pad)), (b"VER\0", b"Q043"), (b"UAID", b"a client")]
    if name is not None:
        values.insert(1, (b"SNI\0", name))
    table, end = b"", 0
    for tag, value in values:
        end += len(value)
        table += tag + struct.pack("<I", end)
    return b"CHLO" + struct.pack("<HH", len(values), 0) + table + b"".join(v for _, v in values)


def stream(message: bytes, *, offset: int = 0) -> bytes:
    """A STREAM frame of Google's QUIC, for the stream of the hello."""
    if offset:
        return b"\xa4\x01" + struct.pack(">HH", offset, len(message)) + message
    return b"\xa0\x01" + struct.pack(">H", len(message)) + message


def google(version: bytes, frames: bytes) -> bytes:
    """A client's packet of Google's QUIC that is not sealed, by its version ("Q043")."""
    if version < b"Q044":
        flags = b"\0" if version < b"Q034" else b""
        return b"\x09" + bytes(range(8)) + version + b"\x01" + bytes(12) + flags + frames
    head = b"\xc3" + version + b"\x50" + bytes(range(8))
    return head + struct.pack(">I", 1) + bytes(12) + frames
