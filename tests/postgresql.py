"""A PostgreSQL server of Debian's for tests: in a folder of its own, over a socket, no port.

It will not run as root, so a root user becomes `postgres` for it. It is set up to be less safe and
less regular than the book needs, as servers are: commits are not waited for, and text has an order
other than that of its bytes; what the book promises must not come from here.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import OperationalError

from tests.need import missing

INSTALLED = Path("/usr/lib/postgresql")  # where Debian keeps the versions
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "120",
    "max_prepared_transactions": "2",
    "shared_buffers": "64MB",
    "synchronous_commit": "off",
}
START_SECONDS = "120"  # on a machine that is busy with other tests
ICU_SINCE = 15  # the first version whose databases may all have an order of ICU's


def _programs() -> Path:
    """The folder of the newest version's programs."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    versions = sorted(INSTALLED.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not versions:
        missing("needs PostgreSQL's initdb (`make test` installs it)")
    return versions[-1].parent


def never_root(*words: str | Path) -> list[str]:
    """A command as somebody who is not root."""
    become = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    return [*become, *map(str, words)]


def _run(*words: str | Path) -> str:
    """What a program of PostgreSQL's says."""
    environment = {**os.environ, "PGCTLTIMEOUT": START_SECONDS}
    done = subprocess.run(
        never_root(*words), capture_output=True, text=True, check=False, cwd="/", env=environment
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


class Server:
    """A server in a folder; `new_database` gives the URL of an empty one while it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._programs, self._data, self._socket = _programs(), folder / "data", folder / "socket"
        self._numbers = itertools.count()

    def make(self) -> None:
        """Make its files."""
        self._socket.mkdir()
        if os.geteuid() == 0:
            for path in (self.folder, self._socket):
                shutil.chown(path, "postgres")
        initdb = self._programs / "initdb"
        version = int(_run(initdb, "--version").split()[2].partition(".")[0])
        icu = ["--locale-provider=icu", "--icu-locale=en"] if version >= ICU_SINCE else []
        said = ["-U", "book", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", *icu]
        _run(initdb, "-D", self._data, *said)

    def start(self, **settings: str) -> None:
        """Start it, and wait until it answers."""
        options = " ".join(self._options(settings))
        log = self._data / "server.log"
        _run(self._programs / "pg_ctl", "-D", self._data, "-l", log, "-w", "-o", options, "start")

    def wait(self) -> None:
        """Wait until one that something else has started answers."""
        until = time.monotonic() + int(START_SECONDS)
        engine = create_engine(self.url("postgres"))
        while True:
            try:
                engine.connect().close()
                break
            except OperationalError:
                assert time.monotonic() < until, "the server does not answer"
                time.sleep(0.05)
        engine.dispose()

    def command(self, **settings: str) -> list[str | Path]:
        """What starts it in the foreground, to be run by something else that watches it."""
        return [self._programs / "postgres", "-D", self._data, *self._options(settings)]

    def _options(self, settings: dict[str, str]) -> list[str]:
        said = [f"-c{name}={value}" for name, value in {**SETTINGS, **settings}.items()]
        return [*said, f"-k{self._socket}"]

    def stop(self, how: str = "fast") -> None:
        """Stop it if it runs: `immediate` is as a crash, and the next start recovers."""
        if (self._data / "postmaster.pid").exists():
            _run(self._programs / "pg_ctl", "-D", self._data, "-w", "-m", how, "stop")

    def url(self, database: str) -> str:
        """The URL of a database."""
        return f"postgresql+psycopg://book@/{database}?host={self._socket}"

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"book_{next(self._numbers)}"
        self.say(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is still connected to it."""
        self.say(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")

    def say(self, statement: str) -> None:
        """Execute a statement that is of no database."""
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()


@contextlib.contextmanager
def a_server() -> Iterator[Server]:
    """A server that was made and does not run; what runs of it ends with the block."""
    # A socket's path may have some hundred bytes, and pytest's folders are longer.
    parent = "/tmp" if os.geteuid() == 0 else None  # where `postgres` may go
    with tempfile.TemporaryDirectory(prefix="pg", dir=parent) as folder:
        server = Server(Path(folder))
        try:
            server.make()
            yield server
        finally:
            server.stop("immediate")


@contextlib.contextmanager
def serving(**settings: str) -> Iterator[Server]:
    """A server that runs until the end of the block."""
    with a_server() as server:
        server.start(**settings)
        yield server
