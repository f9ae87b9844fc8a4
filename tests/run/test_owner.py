"""The owner's socket: answers, failures, queued work, and a folder with a long path."""

import json
import os
import pwd
import socket
import stat
import threading

import pytest

from pipeline.run.actors import Peer, actor_of, own_actor, own_peer
from pipeline.run.failures import RequestError
from pipeline.run.owner import SOCKET, OwnerServer, ask_owner
from pipeline.run.permissions import Denied


def ask(request):
    if request["do"] == "bug":
        raise ZeroDivisionError("no")
    if request["do"] == "refuse":
        raise RequestError("not like this", 2)
    return json.dumps(request).encode()


def admit(request, peer):
    """Lets everybody in but who asks to be denied."""
    if request.get("do") == "deny":
        raise Denied("no: not you", peer.actor, "sql", "id 1")
    return request | {"actor": peer.actor}


@pytest.fixture
def folder(tmp_path):
    long = tmp_path / ("a" * 120)  # longer than a socket address can be
    long.mkdir()
    return long


@pytest.fixture
def server(folder):
    acted, denied = [], []

    def act(request):
        acted.append(threading.get_ident())
        if request["do"] == "denied":
            denied.append(request)
            return b""
        return b"done " + str(request["n"]).encode()

    server = OwnerServer(folder, ask, act, admit)
    server.acted, server.denied = acted, denied
    yield server
    server.close()


def test_nobody_there(folder):
    assert ask_owner(folder, {"do": "sql"}) is None


def test_questions_are_answered(server, folder):
    request = {"do": "sql", "n": 1}
    assert json.loads(ask_owner(folder, request)) == request | {"actor": own_actor()}


def test_failures_keep_their_code(server, folder):
    with pytest.raises(RequestError, match="not like this") as raised:
        ask_owner(folder, {"do": "refuse"})
    assert raised.value.code == 2
    with pytest.raises(RequestError, match="ZeroDivisionError") as raised:
        ask_owner(folder, {"do": "bug"})
    assert raised.value.code == 1


def test_work_is_done_in_the_thread_that_polls(server, folder):
    answers = []
    threads = [
        threading.Thread(
            target=lambda n=n: answers.append(ask_owner(folder, {"do": "job", "n": n}))
        )
        for n in range(5)
    ]
    for thread in threads:
        thread.start()
    while len(answers) < 5:
        server.poll(0.05)
    for thread in threads:
        thread.join()
    assert sorted(answers) == [b"done %d" % n for n in range(5)]
    assert set(server.acted) == {threading.get_ident()}


def test_whoever_is_shown_a_login_is_answered_by_the_owner_itself(server, folder):
    """It writes, so a thread of the socket may not do it."""
    question = {"do": "explain", "n": 7, "question": {"with_identity": True}}
    answers = []
    thread = threading.Thread(target=lambda: answers.append(ask_owner(folder, question)))
    thread.start()
    while not answers:
        server.poll(0.05)
    thread.join()
    assert answers == [b"done 7"]
    plain = question | {"question": {"with_identity": False}}
    assert json.loads(ask_owner(folder, plain)) == plain | {"actor": own_actor()}


def test_whoever_is_denied_is_on_record_before_they_are_told(server, folder):
    """By the thread of the owner, for it is written; also of what a thread would have answered."""
    told = []

    def ask_and_tell():
        with pytest.raises(RequestError, match="no: not you") as raised:
            ask_owner(folder, {"do": "deny"})
        told.append(raised.value.code)

    thread = threading.Thread(target=ask_and_tell)
    thread.start()
    thread.join(0.2)
    assert not told, "nobody has written it down yet"
    while not told:
        server.poll(0.05)
    thread.join()
    assert told == [1]
    assert server.acted == [threading.get_ident()]
    expected = {"do": "denied", "actor": own_actor(), "act": "sql", "about": "id 1"}
    assert server.denied == [expected]


def test_the_groups_of_who_asks_are_those_of_their_process(folder):
    seen = []

    def note(request, peer):
        seen.append(peer)
        return request

    server = OwnerServer(folder, ask, ask, note)
    ask_owner(folder, {"do": "sql"})
    server.close()
    assert seen == [own_peer()]
    assert isinstance(seen[0], Peer)
    assert os.getgid() in seen[0].groups


def test_who_asks_is_whom_the_system_says(server, folder, monkeypatch):
    monkeypatch.setenv("LOGNAME", "mallory")
    told = json.loads(ask_owner(folder, {"do": "sql", "actor": "mallory"}))
    assert told["actor"] == own_actor() == pwd.getpwuid(os.getuid()).pw_name
    assert actor_of(2**31 - 7) == f"uid {2**31 - 7}"


def test_only_the_owner_may_connect(server, folder):
    mode = stat.S_IMODE((folder / SOCKET).lstat().st_mode)
    assert mode & 0o077 == 0


def test_nonsense_on_the_socket_harms_nothing(server, folder):
    descriptor = os.open(folder, os.O_RDONLY)
    for nonsense in (b"\n", b"{", b"[]\n", b"\xff\xfe\n", b"null\n", b'"do"\n'):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"/proc/self/fd/{descriptor}/{SOCKET}")
            client.sendall(nonsense)
            client.shutdown(socket.SHUT_WR)
            client.makefile("rb").read()
    os.close(descriptor)
    assert ask_owner(folder, {"do": "sql"}) is not None


def test_after_close_nobody_is_there(folder):
    OwnerServer(folder, ask, ask, admit).close()
    assert ask_owner(folder, {"do": "sql"}) is None
    assert not (folder / SOCKET).exists()


def test_a_socket_left_by_a_crash_is_replaced(folder):
    left = socket.socket(socket.AF_UNIX)
    import os

    descriptor = os.open(folder, os.O_RDONLY)
    left.bind(f"/proc/self/fd/{descriptor}/{SOCKET}")
    left.close()
    os.close(descriptor)
    assert ask_owner(folder, {"do": "sql"}) is None
    server = OwnerServer(folder, ask, ask, admit)
    assert ask_owner(folder, {"do": "sql"}) is not None
    server.close()
