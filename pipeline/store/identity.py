"""The identity table: which login a subscriber id stands for, readable with the identity key only.

Every other table has the random subscriber id. Logins are sealed with AES-256-GCM under a key
derived from `keys.identity` (so that the same key never both hashes and encrypts), with the
subscriber id as associated data: a sealed login moved to another row does not open. Erasing
destroys the login and leaves a mark, so that a replayed journal does not bring it back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, bindparam, insert, select, update

from pipeline.model.identifiers import id_text
from pipeline.store.book_schema import Session, identities

CHUNK = 500


class IdentityError(RuntimeError):
    """A sealed login does not open: another key, or a row that was changed."""


class Identities:
    """Puts, finds and erases logins of subscribers, through the book's sessions."""

    def __init__(self, read: Session, write: Session, identity_key: bytes) -> None:
        derived = HKDF(SHA256(), 32, None, b"mirrorpoint identity table").derive(identity_key)
        self._read, self._write, self._seal = read, write, AESGCM(derived)

    def put(self, logins: dict[bytes, str], now_ns: int) -> int:
        """Keep logins by subscriber id in one transaction; how many rows were written.

        A login that is there already is left alone, one that changed is sealed anew, an erased
        subscriber stays erased.
        """
        if not logins:
            return 0
        with self._write() as connection:
            return self._put(connection, logins, now_ns)

    def _put(self, connection: Connection, logins: dict[bytes, str], now_ns: int) -> int:
        known = {}
        wanted = list(logins)
        for at in range(0, len(wanted), CHUNK):
            chosen = identities.c.subscriber_id.in_(wanted[at : at + CHUNK])
            known.update(
                {row[0]: row for row in connection.execute(select(identities).where(chosen))}
            )
        fresh, changed = [], []
        for subscriber_id, login in logins.items():
            row = known.get(subscriber_id)
            if row is None:
                fresh.append((subscriber_id, login))
            elif not row.erased_ns and self._open(*row[:3]) != login:
                changed.append((subscriber_id, login))
        if fresh:
            rows = [self._sealed(*pair, now_ns) for pair in fresh]
            connection.execute(insert(identities), rows)
        if changed:
            statement = update(identities).where(identities.c.subscriber_id == bindparam("at"))
            rows = [self._sealed(*pair, now_ns) for pair in changed]
            connection.execute(statement, [{**r, "at": r.pop("subscriber_id")} for r in rows])
        return len(fresh) + len(changed)

    def login(self, subscriber_id: bytes) -> str | None:
        """The login; None where it was never known or is erased. Raises IdentityError."""
        chosen = select(identities).where(identities.c.subscriber_id == subscriber_id)
        with self._read() as connection:
            row = connection.execute(chosen).first()
        return None if row is None or row.erased_ns else self._open(*row[:3])

    def erase(self, subscriber_ids: Iterable[bytes], now_ns: int) -> int:
        """Destroy the logins of these subscribers, known or not; how many were there.

        What a database keeps of deleted rows is its own affair (see `wipe_deleted`).
        """
        wanted = list(dict.fromkeys(subscriber_ids))
        there = 0
        with self._write() as connection:
            for subscriber_id in wanted:
                at = identities.c.subscriber_id == subscriber_id
                row = connection.execute(select(identities).where(at)).first()
                there += row is not None and not row.erased_ns
                connection.execute(identities.delete().where(at))
                erased_ns = (row.erased_ns if row is not None else 0) or max(now_ns, 1)
                connection.execute(
                    insert(identities),
                    {
                        "subscriber_id": subscriber_id,
                        "nonce": None,
                        "sealed": None,
                        "put_ns": row.put_ns if row is not None else 0,
                        "erased_ns": erased_ns,
                    },
                )
        return there

    def problems(self) -> list[str]:
        """Rows that do not open, each as a sentence."""
        found = []
        with self._read() as connection:
            for row in connection.execute(select(identities).order_by(identities.c.subscriber_id)):
                if row.erased_ns and (row.sealed is not None or row.nonce is not None):
                    found.append(f"subscriber {id_text(row[0])} is erased but has a sealed login")
                elif not row.erased_ns:
                    try:
                        self._open(*row[:3])
                    except IdentityError as error:
                        found.append(str(error))
        return found

    def _sealed(self, subscriber_id: bytes, login: str, now_ns: int) -> dict[str, object]:
        nonce = os.urandom(12)
        return {
            "subscriber_id": subscriber_id,
            "nonce": nonce,
            "sealed": self._seal.encrypt(nonce, login.encode(), subscriber_id),
            "put_ns": now_ns,
            "erased_ns": 0,
        }

    def _open(self, subscriber_id: bytes, nonce: bytes | None, sealed: bytes | None) -> str:
        try:
            return self._seal.decrypt(nonce or b"", sealed or b"", subscriber_id).decode()
        except (InvalidTag, ValueError) as error:
            raise IdentityError(
                f"the login of subscriber {id_text(subscriber_id)} does not open: it was sealed"
                " with another identity key, or its row was changed"
            ) from error
