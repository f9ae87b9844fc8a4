"""The demo leaves nothing, unless asked to; then it leaves a store, and three queries that work."""

import json
import shlex

import pytest

from tests.commands import done, mirrorpoint

pytestmark = pytest.mark.slow  # a process, or several, for each test

MARK = "Three queries worth trying:"


def queries(text):
    """The commands that the demo prints, each as words; a long line goes on after a backslash."""
    lines = text.partition(MARK)[2].replace("\\\n", " ").splitlines()
    commands = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    return [shlex.split(command) for command in commands]


@pytest.fixture
def private(tmp_path):
    """An environment whose temporary folder is ours alone, and that folder."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return {"TMPDIR": str(folder)}, folder


def test_a_kept_store_answers_the_three_queries(private, tmp_path):
    env, folder = private
    state = tmp_path / "a state"  # the space has to survive the printed command
    printed = done("demo", "--keep", "--state", state, env=env)
    asked = queries(printed)
    assert len(asked) == 3
    for words in asked:
        assert words[:4] == ["mirrorpoint", "sql", "--state", str(state)]
        assert json.loads(done(*words[1:], "--json", env=env))["data"], words
    assert list(folder.iterdir()) == []
    again = done("demo", "--keep", "--state", state, env=env)
    hashes = [line for line in printed.splitlines() if "_hash" in line]
    assert len(hashes) == 2
    assert [line for line in again.splitlines() if "_hash" in line] == hashes


def test_nothing_is_kept_unless_asked_for(private, tmp_path, monkeypatch):
    env, folder = private
    monkeypatch.chdir(tmp_path)
    printed = done("demo", env=env)
    assert "Nothing was kept" in printed
    assert MARK not in printed
    assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_of_somebody_else_is_left_alone(private, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "letter.txt").write_text("dear")
    result = mirrorpoint("demo", "--keep", "--state", theirs, env=private[0])
    assert result.returncode == 2
    assert "holds something else" in result.stderr
    assert [path.name for path in theirs.iterdir()] == ["letter.txt"]
