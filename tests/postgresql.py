"""A PostgreSQL server of Debian's for tests: in a folder of its own, over a socket, no port.

It will not run as root, so a root user becomes `postgres` for it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import create_engine

from tests.need import missing

INSTALLED = Path("/usr/lib/postgresql")  # where Debian keeps the versions
SETTINGS = {"listen_addresses": "", "max_connections": "120", "shared_buffers": "64MB"}


def _programs() -> Path:
    """The folder of the newest version's programs."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    versions = sorted(INSTALLED.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not versions:
        missing("needs PostgreSQL's initdb (`make test` installs it)")
    return versions[-1].parent


def _run(*words: str | Path) -> None:
    """Run a program of PostgreSQL's, never as root."""
    become = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*become, *map(str, words)], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr + done.stdout


class Server:
    """A running server; `new_database` gives the URL of an empty one."""

    def __init__(self, folder: Path) -> None:
        self._programs, self._data, self._socket = _programs(), folder / "data", folder / "socket"
        self._numbers = itertools.count()
        self._socket.mkdir()
        if os.geteuid() == 0:
            for path in (folder, self._socket):
                shutil.chown(path, "postgres")
        initdb = self._programs / "initdb"
        _run(initdb, "-D", self._data, "-U", "book", "-A", "trust", "-E", "UTF8", "--locale=C")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        said = " ".join(f"-c {name}='{value}'" for name, value in SETTINGS.items())
        log = self._data / "server.log"
        options = f"{said} -k '{self._socket}'"
        _run(self._programs / "pg_ctl", "-D", self._data, "-l", log, "-w", "-o", options, "start")

    def stop(self, how: str = "fast") -> None:
        """Stop it: `immediate` is as a crash, and the next start recovers."""
        _run(self._programs / "pg_ctl", "-D", self._data, "-w", "-m", how, "stop")

    def url(self, database: str) -> str:
        """The URL of a database."""
        return f"postgresql+psycopg://book@/{database}?host={self._socket}"

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        name = f"book_{next(self._numbers)}"
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine.dispose()
        return self.url(name)


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A server that ends with the block."""
    # A socket's path may have some hundred bytes, and pytest's folders are longer.
    parent = "/tmp" if os.geteuid() == 0 else None  # where `postgres` may go
    with tempfile.TemporaryDirectory(prefix="pg", dir=parent) as folder:
        server = Server(Path(folder))
        try:
            yield server
        finally:
            server.stop("immediate")
