"""A socket for the user, a door for a group: what may stand in their way, and what comes in."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import socket
import stat
import threading
import time

import pytest

from pipeline.run import listener
from pipeline.run.actors import own_peer
from pipeline.run.failures import RequestError
from pipeline.run.folder import StateError
from pipeline.run.listener import Listener, OwnerStopped, ask_socket, door_of
from pipeline.run.permissions import Door

OWN_GROUP = grp.getgrgid(os.getgid()).gr_name


def answer(line, peer):
    body = json.dumps([json.loads(line), peer == own_peer()]).encode()
    return {"ok": True, "length": len(body)}, body


def ended(found: Listener) -> None:
    found.stop()
    found.close()


def mode_of(path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_what_is_asked_is_answered_to_whom_the_system_says(tmp_path):
    path = tmp_path / ("a" * 90) / "owner.sock"
    path.parent.mkdir()
    found = Listener(path, answer)
    assert mode_of(path) == 0o600
    assert json.loads(ask_socket(path, {"do": "x"})) == [{"do": "x"}, True]
    ended(found)
    assert not path.exists()
    assert ask_socket(path, {"do": "x"}) is None


def test_a_door_is_for_a_group(tmp_path):
    path = tmp_path / "door.sock"
    found = door_of(Door(path, OWN_GROUP), answer)
    assert mode_of(path) == 0o660
    assert path.lstat().st_gid == os.getgid()
    assert json.loads(ask_socket(path, {}))[1]
    ended(found)


def test_a_door_that_a_crash_left_is_replaced(tmp_path):
    path = tmp_path / "door.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    assert path.is_socket()
    ended(door_of(Door(path, OWN_GROUP), answer))


def test_a_door_at_which_somebody_answers_is_not(tmp_path):
    path = tmp_path / "door.sock"
    first = door_of(Door(path, OWN_GROUP), answer)
    with pytest.raises(StateError, match="another owner answers there"):
        door_of(Door(path, OWN_GROUP), answer)
    assert json.loads(ask_socket(path, {}))[1], "and it goes on answering"
    ended(first)


def test_what_else_stands_there_is_left_alone(tmp_path):
    path = tmp_path / "door.sock"
    path.write_text("mine")
    with pytest.raises(StateError, match="something else stands there"):
        door_of(Door(path, OWN_GROUP), answer)
    assert path.read_text() == "mine"
    with pytest.raises(StateError, match="No such file"):
        door_of(Door(tmp_path / "none" / "door.sock", OWN_GROUP), answer)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match="something else stands there"):
        door_of(Door(tmp_path / "link", OWN_GROUP), answer)


def test_a_door_that_cannot_be_given_away_is_not_left_behind(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(listener.os, "chown", refuse)
    with pytest.raises(StateError, match="has to be in that group"):
        door_of(Door(tmp_path / "door.sock", OWN_GROUP), answer)
    assert not (tmp_path / "door.sock").exists()


def test_who_says_nothing_does_not_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(listener, "READ_SECONDS", 0.1)
    found = Listener(tmp_path / "s", answer)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(tmp_path / "s"))
        assert client.recv(1) == b""
    ended(found)


def test_an_owner_that_is_gone_before_it_answers_is_told_apart(tmp_path):
    """Whoever asked for something does not know then whether it was done."""
    path = tmp_path / "s"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def take_and_leave():
        connection, _ = server.accept()
        connection.recv(100)
        connection.close()

    thread = threading.Thread(target=take_and_leave)
    thread.start()
    with pytest.raises(OwnerStopped, match="try again"):
        ask_socket(path, {"do": "x"})
    thread.join()
    server.close()
    assert issubclass(OwnerStopped, RequestError)


def test_one_user_cannot_take_all_places(tmp_path, monkeypatch):
    monkeypatch.setattr(listener, "AT_ONCE", 2)
    path = tmp_path / "owner.sock"
    found = Listener(path, answer)
    open_ones = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    for one in open_ones:
        one.connect(str(path))
    for _ in range(100):  # until both are waited for
        with contextlib.suppress(RequestError):
            ask_socket(path, {"do": "x"})
            time.sleep(0.02)
            continue
        break
    with pytest.raises(RequestError, match="has 2 questions open here"):
        ask_socket(path, {"do": "x"})
    open_ones.pop().close()
    for _ in range(100):
        with contextlib.suppress(RequestError):
            assert json.loads(ask_socket(path, {"do": "x"})) == [{"do": "x"}, True]
            break
        time.sleep(0.02)
    else:
        pytest.fail("a place that was given back stays taken")
    open_ones.pop().close()
    ended(found)
