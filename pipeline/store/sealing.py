"""Sealed columns: encrypted under a key per segment, so that retention is the end of a key.

A frame's sealed part is AES-256-GCM (NIST SP 800-38D) over an Arrow record batch: 12 bytes nonce,
ciphertext, 16 bytes tag. The nonce is the frame's number and 64 random bits: the number keeps two
frames of a file apart, the random bits keep apart a torn frame and the one that later takes its
place. The associated data names stream, segment, frame, first row and rows, so a sealed part opens
nowhere else.

A segment's key is 32 random bytes, kept wrapped (RFC 3394 key wrap, which needs no nonce) by a key
that is derived from the `seal` key, the stream and the segment. Its file is 52 bytes:

     0  magic "MPK1"
     4  u32  1: there is a key; 0: it was destroyed
     8  40 bytes wrapped key, or zero bytes
    48  u32  CRC32C of what is before

`destroy` overwrites the file in place and syncs it. The file stays, to tell a key that was
destroyed from one that was lost. Copies that backups or a copying file system made are beyond our
reach.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import pyarrow as pa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from pipeline.model.identifiers import digest
from pipeline.store.synced import sync_folder

KEY_FILE = struct.Struct("<4sI40sI")
MAGIC = b"MPK1"
KEY_BYTES = 32
NONCE = struct.Struct("<I8s")


class SealingError(ValueError):
    """A key or a sealed part that is missing, damaged or not the one that belongs there."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed part belongs; what it is bound to."""

    stream: str
    segment: int
    frame: int
    first_row: int
    rows: int

    def associated(self) -> bytes:
        """The bytes that are authenticated with the sealed part."""
        return (
            f"mirrorpoint/{self.stream}/{self.segment}/{self.frame}/{self.first_row}/{self.rows}"
        ).encode()


class SegmentKey:
    """The key of one segment."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, plain: pa.Buffer, place: Place) -> bytes:
        """Nonce, ciphertext and tag."""
        nonce = NONCE.pack(place.frame, os.urandom(8))
        return nonce + self._cipher.encrypt(nonce, _octets(plain), place.associated())

    def unseal(self, sealed: pa.Buffer, place: Place) -> bytes:
        """What was sealed. Raises SealingError where one bit of it, or its place, is another."""
        raw = _octets(sealed)
        try:
            return self._cipher.decrypt(
                bytes(raw[: NONCE.size]), raw[NONCE.size :], place.associated()
            )
        except (InvalidTag, ValueError):
            raise SealingError(
                "the sealed part does not open: changed, or of another place"
            ) from None


class SegmentKeys:
    """The key files of a journal, in `folder`."""

    def __init__(self, folder: Path, seal_key: bytes) -> None:
        self._folder, self._seal_key = folder, seal_key

    def path(self, stream: str, segment: int) -> Path:
        """Where a segment's key is kept."""
        return self._folder / f"{stream}-{segment:012d}.key"

    def create(self, stream: str, segment: int) -> SegmentKey:
        """A new key, durable before anything is sealed with it.

        A file that is there already belongs to a segment that never came to be, and is overwritten.
        """
        key = os.urandom(KEY_BYTES)
        wrapped = aes_key_wrap(self._wrapping(stream, segment), key)
        _write(self.path(stream, segment), 1, wrapped)
        sync_folder(self._folder)
        return SegmentKey(key)

    def load(self, stream: str, segment: int) -> SegmentKey | None:
        """The key of a segment, None where it was destroyed. Raises SealingError."""
        path = self.path(stream, segment)
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            raise SealingError(f"{path}: the key of this segment is missing") from None
        if len(raw) != KEY_FILE.size:
            raise SealingError(f"{path}: {len(raw)} bytes, not {KEY_FILE.size}")
        magic, state, wrapped, crc = KEY_FILE.unpack(raw)
        if crc != google_crc32c.value(raw[:-4]) or magic != MAGIC or state not in (0, 1):
            raise SealingError(f"{path}: damaged")
        if state == 0:
            return None
        try:
            return SegmentKey(aes_key_unwrap(self._wrapping(stream, segment), wrapped))
        except InvalidUnwrap:
            raise SealingError(f"{path}: not wrapped by this state's seal key") from None

    def destroy(self, stream: str, segment: int) -> None:
        """End the key for good: nothing sealed in this segment opens from now on."""
        path = self.path(stream, segment)
        if not path.exists():
            raise SealingError(f"{path}: the key of this segment is missing")
        _write(path, 0, bytes(40))

    def _wrapping(self, stream: str, segment: int) -> bytes:
        parts = [digest(self._seal_key, "wrap", stream, segment, half) for half in (0, 1)]
        return b"".join(parts)


def _octets(buffer: pa.Buffer) -> memoryview:
    """The bytes of an Arrow buffer, which calls them signed, as the cipher wants them."""
    return memoryview(buffer).cast("B")


def _write(path: Path, state: int, wrapped: bytes) -> None:
    """Write a key file in place: what stood there before is overwritten, not left behind."""
    raw = KEY_FILE.pack(MAGIC, state, wrapped, 0)[:-4]
    raw += struct.pack("<I", google_crc32c.value(raw))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, raw, 0)
        os.ftruncate(descriptor, len(raw))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
