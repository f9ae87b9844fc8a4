"""Identifiers: 16 bytes, shown as UUID text.

Ids of things we compute are keyed hashes of their cause, so doing it twice gives the same id and
nobody without the key can guess one. Keys have one purpose each. In a case they are derived from
the case's seed; live they are random files. blake2b with a key is a MAC (RFC 7693, section 2.9).
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np

NO_ID = bytes(16)
NO_ID_TEXT = str(uuid.UUID(bytes=NO_ID))


@dataclass(frozen=True, slots=True)
class Keys:
    """One 32-byte key per purpose. `test` marks keys that `run` refuses."""

    identity: bytes  # logins to subscribers, and the identity table
    address: bytes  # address hashes, flow ids
    visit: bytes  # visit, decision, binding ids
    click: bytes  # click ids
    link: bytes  # signed links
    audit: bytes  # keyed hashes of sealed columns, hash chains
    seal: bytes  # wraps the segment keys
    test: bool = False

    @classmethod
    def from_seed(cls, seed: str) -> Keys:
        """Test keys, the same for the same seed."""
        derived = {
            f.name: hashlib.blake2b(
                b"mirrorpoint test key", key=seed.encode()[:64], person=f.name.encode()[:16]
            ).digest()[:32]
            for f in fields(cls)
            if f.name != "test"
        }
        return cls(**derived, test=True)


def digest(key: bytes, kind: str, *parts: str | bytes | int) -> bytes:
    """The 16-byte keyed hash of `kind` and `parts`; each part is length-prefixed, so none can
    slide.
    """
    pieces: list[bytes] = []
    for part in parts:
        if isinstance(part, int):
            part = part.to_bytes(16, "little", signed=True)
        raw = part.encode() if isinstance(part, str) else part
        pieces += (len(raw).to_bytes(8, "little"), raw)
    h = _begun(key, kind).copy()
    h.update(b"".join(pieces))
    return h.digest()


@lru_cache(maxsize=256)
def _begun(key: bytes, kind: str) -> hashlib.blake2b:
    """A hash that has taken its key: half of the work on something short."""
    return hashlib.blake2b(key=key, digest_size=16, person=kind.encode()[:16])


def words_of(key: bytes) -> np.ndarray:
    """A key as the two uint64 words that the SipHash kernels take (the key's first 16 bytes)."""
    return np.frombuffer(key[:16], np.uint64).copy()


def id_text(value: bytes | np.void) -> str:
    """UUID text of an id; empty for none."""
    raw = value if isinstance(value, bytes) else value.tobytes()
    return "" if raw == NO_ID else str(uuid.UUID(bytes=raw))


def parse_id(text: str) -> bytes | None:
    """An id from UUID text (or 32 hex digits); None where it is neither."""
    try:
        return uuid.UUID(text.strip()).bytes
    except ValueError:
        return None
