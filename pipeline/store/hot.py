"""Hot state: named arrays in sealed files, for what has to survive between two units of input.

Open visits hold the addresses of their sessions, which the journal seals; so no array of them may
lie open beside it. A file is an `npz` archive cut into chunks, each sealed with AES-256-GCM as in
`sealing.py` and bound to the file's name, its place in it and the whole length: a chunk that is
changed, missing, or of another file does not open. The key is derived from the state's `seal` key
under a word of its own.

A file is written aside, made durable and renamed, so that there is a whole one or none.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.model.identifiers import Keys, digest
from pipeline.store.sealing import NONCE, Place, SealingError, SegmentKey
from pipeline.store.synced import sync_folder

SUFFIX = ".sealed"
CHUNK_BYTES = 64 << 20
TAG_BYTES = 16
LENGTH_BYTES = 8


class HotState:
    """The sealed files of a folder, by name."""

    def __init__(self, folder: Path, keys: Keys) -> None:
        self.folder = folder
        halves = [digest(keys.seal, "hot", half) for half in (0, 1)]
        self._key = SegmentKey(b"".join(halves))
        folder.mkdir(mode=0o700, exist_ok=True)

    def save(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write arrays (of plain numbers) under a name; durable when it returns."""
        plain = io.BytesIO()
        np.savez(plain, allow_pickle=False, **dict(arrays))  # type: ignore[arg-type]
        raw = plain.getbuffer()
        aside = self.folder / f".{name}{SUFFIX}"
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(raw.nbytes.to_bytes(LENGTH_BYTES, "little"))
            for number, start in enumerate(range(0, raw.nbytes, CHUNK_BYTES)):
                place = Place(f"hot/{name}", 0, number, start, raw.nbytes)
                chunk = pa.py_buffer(raw[start : start + CHUNK_BYTES])
                file.write(self._key.seal(chunk, place))
            file.flush()
            os.fsync(file.fileno())
        aside.rename(self._path(name))
        sync_folder(self.folder)

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of a name, None where there are none. Raises SealingError."""
        try:
            raw = memoryview(self._path(name).read_bytes())
        except FileNotFoundError:
            return None
        size, at = int.from_bytes(raw[:LENGTH_BYTES], "little"), LENGTH_BYTES
        parts: list[bytes] = []
        start = 0
        while start < size or not parts:
            sealed = pa.py_buffer(raw[at : at + NONCE.size + CHUNK_BYTES + TAG_BYTES])
            place = Place(f"hot/{name}", 0, len(parts), start, size)
            try:
                parts.append(self._key.unseal(sealed, place))
            except SealingError as error:
                raise SealingError(
                    f"{self._path(name)}: {error}. Take it from your backup, or remove it: what it "
                    "held then begins anew"
                ) from None
            at, start = at + sealed.size, start + len(parts[-1])
        with np.load(io.BytesIO(b"".join(parts)), allow_pickle=False) as arrays:
            return dict(arrays)

    def keep_only(self, names: set[str]) -> None:
        """Remove everything in the folder but the files of these names."""
        kept = {self._path(name) for name in names}
        for path in list(self.folder.iterdir()):
            if path not in kept:
                path.unlink()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"
