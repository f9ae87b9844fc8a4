"""The engine of the book's database: SQLite or PostgreSQL, opened so that the book sees none of it.

    one writer        a write transaction locks out all others from its beginning: SQLite's
                      BEGIN IMMEDIATE; an advisory lock of PostgreSQL, taken before anything is read
    readers           see one moment for as long as they read: write-ahead log; REPEATABLE READ
    a commit          is on the disk when it returns: `synchronous=FULL`; `synchronous_commit` of
                      `on` or more, and a server with `fsync = off` is refused
    waiting           ends: for another writer after `wait_seconds`; a PostgreSQL server ends the
                      session of a writer that says nothing for as long, and its lock with it
    an erased login   is overwritten: `secure_delete` in transactions that say that they wipe;
                      PostgreSQL's table is written anew

What only one of the two understands stands here and nowhere else.

Erasing reaches the files of the database. PostgreSQL keeps deleted bytes, sealed as they were, in
its write-ahead log until the segments are recycled and written over, on its standbys until they
have replayed it, and in archived logs and backups for as long as those are kept: whoever runs the
server sets these times. Neither database overwrites blocks it gave back to the file system.

A commit whose answer was lost, because the server or the line broke, may have happened or not: the
call raises, and the book's writes are all such that they may be sent once more.
"""

from __future__ import annotations

import math
import sqlite3
import time
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.pool import StaticPool

from pipeline.store.book_schema import identities

WRITERS_LOCK = 0x4D50_424F_4F4B  # "MPBOOK": who holds it may write the book of a database
WAIT_SECONDS = 30.0
# Whoever reads logins queues behind what waits to write their table anew, so that is not long; but
# longer than the second after which PostgreSQL's own vacuuming makes room.
WIPE_SECONDS = 2.0
LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's code for a lock that was waited for too long

# A writer reads what others committed while it waited for them; under REPEATABLE READ it would have
# its view of before, and fail.
OTHERS_WORK = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"
# Of the five values only `remote_apply` is more than `on`: there the standby shows it, too.
WRITERS_SETTINGS = """
SELECT set_config('lock_timeout', '{milliseconds}', true),
       set_config('idle_in_transaction_session_timeout', '{milliseconds}', true),
       set_config('synchronous_commit', CASE current_setting('synchronous_commit')
                  WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true),
       current_setting('fsync') AS fsync,
       current_setting('server_encoding') AS encoding
"""


class BookError(RuntimeError):
    """The book cannot be used like this; the message says why."""


def open_engine(url: str, *, wait_seconds: float = WAIT_SECONDS) -> Engine:
    """An engine for the book's URL; `sqlite://` is a book in memory, on one connection.

    `wait_seconds` is how long a writer waits for another one, and for a server's first answer.
    Raises BookError where that was in vain, and for a server on which a commit could be lost.
    """
    parsed = make_url(url)
    is_postgresql = parsed.get_backend_name() == "postgresql"
    engine = (_open_postgresql if is_postgresql else _open_sqlite)(parsed, wait_seconds)

    @event.listens_for(engine, "handle_error")
    def explain(context: ExceptionContext) -> BookError | None:
        if context.connection is None and not context.is_pre_ping:
            return BookError(f"the book's database cannot be opened: {context.original_exception}")
        if _is_busy(context.original_exception):
            return BookError(
                f"another program has been writing to the book for {wait_seconds:g} seconds;"
                " try again when it is done"
            )
        return None

    return engine


def _is_busy(error: BaseException) -> bool:
    """Did a writer wait for another one in vain?"""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    return getattr(error, "sqlstate", None) == LOCK_NOT_AVAILABLE


def _open_sqlite(url: URL, wait_seconds: float) -> Engine:
    in_memory = url.database in (None, "", ":memory:")
    engine = (
        create_engine(url, poolclass=StaticPool, connect_args={"check_same_thread": False})
        if in_memory
        else create_engine(url, connect_args={"timeout": wait_seconds})
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # we begin transactions ourselves, below
        for pragma in (
            "journal_mode=WAL", "synchronous=FULL", "foreign_keys=OFF",
            "cache_size=-65536", "temp_store=MEMORY", "wal_autocheckpoint=8192",
        ):  # fmt: skip
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("writes", False):
            # Zeros in place of what is deleted cost a fifth of all writing, and only the pages of
            # identities need them: what these free is zeros before anything else lies there.
            wipes = "ON" if options.get("wipes", False) else "OFF"
            connection.exec_driver_sql(f"PRAGMA secure_delete={wipes}")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writes", False) else "BEGIN")

    return engine


def _open_postgresql(url: URL, wait_seconds: float) -> Engine:
    """An engine for PostgreSQL 13 or newer, by psycopg."""
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise BookError(
            f"the book speaks to PostgreSQL by psycopg, not by {url.drivername!r}; begin its URL"
            " with postgresql://"
        )
    milliseconds = max(1, round(wait_seconds * 1000))  # to PostgreSQL, 0 would be for ever
    url = url.set(
        drivername="postgresql+psycopg", query={**_line_settings(wait_seconds), **url.query}
    )
    engine = create_engine(url, isolation_level="REPEATABLE READ", pool_pre_ping=True)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if not connection.get_execution_options().get("writes", False):
            return
        connection.exec_driver_sql(OTHERS_WORK)
        settings = WRITERS_SETTINGS.format(milliseconds=milliseconds)
        found = connection.exec_driver_sql(settings).one()
        if found.fsync != "on":
            raise BookError(
                "this PostgreSQL server has fsync = off: it would say that points are booked, and"
                " lose them with its power; set fsync = on and reload it"
            )
        if found.encoding != "UTF8":
            raise BookError(
                f"this database keeps text as {found.encoding}, which lacks letters of names;"
                " make one with ENCODING 'UTF8'"
            )
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITERS_LOCK})")

    return engine


def _line_settings(wait_seconds: float) -> dict[str, str]:
    """Options of libpq that the URL need not name: a line that is dead shall not be waited for."""
    return {
        "connect_timeout": str(max(2, math.ceil(wait_seconds))),
        "keepalives": "1",
        "keepalives_idle": "10",
        "keepalives_interval": "5",
        "keepalives_count": "4",
        "tcp_user_timeout": str(max(1000, round(wait_seconds * 1000))),
        "target_session_attrs": "read-write",  # of several hosts the one that takes writes
        "client_encoding": "utf8",
        "fallback_application_name": "mirrorpoint",
    }


def wipe_deleted(engine: Engine) -> bool:
    """Remove from the database's files what was deleted; False where somebody is in the way.

    SQLite's write-ahead log is emptied, PostgreSQL's table of identities written anew. What stays
    elsewhere for a while stands at the head of this module.
    """
    if engine.dialect.name == "postgresql":
        return _wipe_postgresql(engine)
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (busy, *_), *_ = cursor.fetchall()
        cursor.close()
        return bool(busy == 0)
    finally:
        raw.close()


def _wipe_postgresql(engine: Engine) -> bool:
    """Write the table of identities anew, and tell whether no deleted row came along.

    VACUUM FULL copies every dead row that anybody might still see: an open snapshot, a prepared
    transaction, a replication slot, a standby that reads. Its own answer does not tell, and the
    views that list such things hide those of other users. But it leaves in `relfrozenxid` the
    number below which no transaction's mark is left in the table. So a number is drawn that is
    larger than that of every deletion: if the table's is not smaller, the rows are gone. Drawn as a
    writer, for then no other writer has a smaller one and is still at work.
    """
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        drawn = connection.exec_driver_sql("SELECT pg_current_xact_id()::xid::text").scalar_one()
    raw = engine.raw_connection()
    session: Any = raw.driver_connection
    raw.detach()  # what is set below is set for the session, which ends with this
    try:
        session.autocommit = True  # VACUUM has transactions of its own
        if not _readers_are_gone(session, drawn):
            return False
        session.execute(f"SET lock_timeout = {round(WIPE_SECONDS * 1000)}")
        try:
            session.execute(f"VACUUM (FULL) {identities.name}")
        except engine.dialect.loaded_dbapi.errors.LockNotAvailable:
            return False
        newer = "SELECT age(relfrozenxid) <= age(%s::xid) FROM pg_class WHERE oid = %s::regclass"
        return bool(session.execute(newer, [drawn, identities.name]).fetchone()[0])
    finally:
        raw.close()


def _readers_are_gone(session: Any, drawn: str) -> bool:
    """Wait a little for older readers, as far as this user is shown them; did they go?

    Those of the book are this user's own, and read for a moment: without waiting, erasing would
    fail whenever there is one, having written the whole table anew for nothing.
    """
    older = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
        " AND greatest(age(backend_xmin), age(backend_xid)) > age(%s::xid)"
    )
    until = time.monotonic() + WIPE_SECONDS
    while session.execute(older, [drawn]).fetchone()[0]:
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True
