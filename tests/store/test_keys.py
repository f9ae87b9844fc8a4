from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from pipeline.model.identifiers import Keys
from pipeline.store.keys import (
    PURPOSES,
    KeyFileError,
    create_live_keys,
    create_test_keys,
    have_keys,
    keys_folder,
    load_keys,
)


def problems(state: Path, allow_test: bool = True) -> list[str]:
    with pytest.raises(KeyFileError) as caught:
        load_keys(state, allow_test)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_live_keys_are_found_again(state):
    made = create_live_keys(state)
    assert load_keys(state, allow_test=False) == made
    assert not made.test
    assert have_keys(state)


def test_live_keys_are_random_and_each_is_its_own(tmp_path):
    made = [create_live_keys(tmp_path / name) for name in "ab"]
    every = [getattr(keys, purpose) for keys in made for purpose in PURPOSES]
    assert len(set(every)) == 2 * len(PURPOSES)
    assert {len(key) for key in every} == {32}


def test_only_the_owner_may_read(state):
    old = os.umask(0)
    try:
        create_live_keys(state)
    finally:
        os.umask(old)
    assert mode(keys_folder(state)) == 0o700
    assert {mode(path) for path in keys_folder(state).iterdir()} == {0o600}
    assert {path.name for path in keys_folder(state).iterdir()} == {f"{p}.key" for p in PURPOSES}


def test_test_keys_follow_from_their_seed(state):
    made = create_test_keys(state, "first day")
    assert made == Keys.from_seed("first day") == load_keys(state, allow_test=True)
    assert made.test
    assert mode(keys_folder(state) / "test") == 0o600


def test_a_live_run_refuses_test_keys(state):
    create_test_keys(state, "first day")
    [problem] = problems(state, allow_test=False)
    assert "test keys" in problem


def test_test_keys_need_a_seed(state):
    with pytest.raises(ValueError, match="seed"):
        create_test_keys(state, "")
    assert not have_keys(state)


@pytest.mark.parametrize("again", [create_live_keys, lambda state: create_test_keys(state, "x")])
def test_keys_are_never_replaced(state, again):
    made = create_live_keys(state)
    with pytest.raises(KeyFileError, match="already"):
        again(state)
    assert load_keys(state, allow_test=False) == made
    assert [path.name for path in state.iterdir()] == ["keys"]


def test_of_two_who_make_keys_the_first_counts(state, monkeypatch):
    """Between the look and the rename somebody else was faster."""
    first = create_live_keys(state)
    real = Path.exists
    monkeypatch.setattr(Path, "exists", lambda p: False if p.name == "keys" else real(p))
    with pytest.raises(KeyFileError, match="already"):
        create_live_keys(state)
    monkeypatch.undo()
    assert load_keys(state, allow_test=False) == first
    assert [path.name for path in state.iterdir()] == ["keys"]


def test_a_crash_while_keys_are_made_leaves_none(state, monkeypatch):
    def die(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", die)
    with pytest.raises(KeyboardInterrupt):
        create_live_keys(state)
    monkeypatch.undo()
    assert not have_keys(state)
    made = create_live_keys(state)
    assert load_keys(state, allow_test=False) == made


def test_no_keys(state):
    [problem] = problems(state)
    assert "no keys" in problem
    state.mkdir()
    keys_folder(state).write_text("a file")
    assert "not a folder" in problems(state)[0]


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660, 0o602, 0o610, 0o700, 0o777])
def test_a_key_that_others_may_read_is_refused(state, bits):
    create_live_keys(state)
    path = keys_folder(state) / "click.key"
    path.chmod(bits)
    [problem] = problems(state)
    assert problem.startswith(f"{path}: mode {bits:04o}")
    assert "chmod 0600" in problem


def test_a_key_may_be_kept_even_closer(state):
    made = create_live_keys(state)
    (keys_folder(state) / "click.key").chmod(0o400)
    assert load_keys(state, allow_test=False) == made


@pytest.mark.parametrize("bits", [0o750, 0o705, 0o777, 0o701])
def test_a_folder_that_others_may_enter_is_refused(state, bits):
    create_live_keys(state)
    keys_folder(state).chmod(bits)
    [problem] = problems(state)
    assert "chmod 0700" in problem


def test_the_test_mark_is_held_to_the_same(state):
    create_test_keys(state, "first day")
    (keys_folder(state) / "test").chmod(0o644)
    assert "mode 0644" in problems(state)[0]


def test_a_link_is_no_key(state, tmp_path):
    create_live_keys(state)
    path = keys_folder(state) / "seal.key"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert "plain file" in problems(state)[0]


def test_a_pipe_is_no_key(state):
    """Opening it must not wait for somebody to write."""
    create_live_keys(state)
    path = keys_folder(state) / "seal.key"
    path.unlink()
    os.mkfifo(path, 0o600)
    assert "plain file" in problems(state)[0]


def test_a_foreign_owner_is_refused(state, monkeypatch):
    create_live_keys(state)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert "chown" in problems(state)[0]


def test_everything_wrong_is_said_at_once(state):
    create_live_keys(state)
    folder = keys_folder(state)
    (folder / "identity.key").unlink()
    (folder / "address.key").write_bytes(b"short")
    shutil.copy2(folder / "click.key", folder / "visit.key")
    (folder / "link.key").write_bytes(bytes(32))
    (folder / "audit.key").chmod(0o666)
    (folder / "notes.txt").write_text("mine")
    found = "\n".join(problems(state))
    for words in (
        "identity.key: missing",
        "address.key: 5 bytes, a key has 32",
        "click.key: the same as visit.key",
        "link.key: only zero bytes",
        "audit.key: mode 0666",
        "notes.txt: does not belong here",
    ):
        assert words in found


def test_live_and_test_keys_do_not_mix(state):
    create_live_keys(state)
    mark = keys_folder(state) / "test"
    mark.write_text("first day")
    mark.chmod(0o600)
    assert any("does not belong here" in p for p in problems(state, allow_test=True))


def test_an_emptied_mark_is_refused(state):
    create_test_keys(state, "first day")
    (keys_folder(state) / "test").write_bytes(b"")
    assert "lost its seed" in problems(state)[0]


def test_no_key_is_ever_shown(state):
    made = create_live_keys(state)
    folder = keys_folder(state)
    for purpose in PURPOSES:
        (folder / f"{purpose}.key").chmod(0o666)
    shown = "\n".join(problems(state))
    for purpose in PURPOSES:
        assert getattr(made, purpose).hex() not in shown
        assert repr(getattr(made, purpose)) not in shown
