"""The server that tests start: less safe than the book needs, and gone when its block ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests.postgresql import ICU_SINCE, Server, a_server, serving


def runs(pid: int) -> bool:
    """Is there such a process? One that has ended and was not waited for has no words left."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except FileNotFoundError:
        return False


def pid_of(server: Server) -> int:
    return int((server._data / "postmaster.pid").read_text().split()[0])


def test_it_serves_and_is_gone() -> None:
    with serving() as server:
        pid = pid_of(server)
        assert runs(pid)
        engine = create_engine(server.new_database())
        with engine.connect() as connection:
            shown = connection.execute(text("SHOW synchronous_commit")).scalar_one()
            assert shown == "off", "what the book promises must not come from here"
            version = connection.dialect.server_version_info
            assert version
            if version[0] >= ICU_SINCE:
                assert connection.execute(text("SELECT 'a' < 'B'")).scalar_one(), "nor its order"
        server.drop(str(engine.url))
        engine.dispose()
        server.stop()
        assert not runs(pid)
        server.stop()
        server.start(synchronous_commit="on")
        pid = pid_of(server)
    assert not runs(pid)
    assert not server._data.exists()


def test_one_that_failed_to_start_in_time_is_gone_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pids, start = [], Server.start

    def start_too_late(server: Server, **settings: str) -> None:
        start(server, **settings)
        pids.append(pid_of(server))
        raise AssertionError("pg_ctl: server did not start in time")

    monkeypatch.setattr(Server, "start", start_too_late)
    with pytest.raises(AssertionError, match="in time"), serving():
        pass
    assert len(pids) == 1
    assert not runs(pids[0])


def test_one_that_was_never_started_needs_no_end() -> None:
    with a_server() as server:
        assert not (server._data / "postmaster.pid").exists()
