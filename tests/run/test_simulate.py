"""`mirrorpoint simulate`: what it prints, and that a failing seed is shown, shrunk and repeated."""

from __future__ import annotations

import json

import pytest

from pipeline.run import simulate as module
from pipeline.run.simulate import WHOLE_EVERY, Stage, simulate
from pipeline.store import book_commands
from tests.commands import done


def test_seeds_without_a_difference(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(1, 3, 20, as_json=False) == 0
    said = capsys.readouterr().out
    assert said.startswith("3 seeds from 1, 60 steps, 0 seeds through the whole path: no diff")
    assert simulate(1, 2, 20, as_json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["first"], told["seeds"], told["steps"], told["whole"]) == (1, 2, 40, 0)


def test_the_command_line_goes_through_the_whole_path_too() -> None:
    told = json.loads(done("simulate", "--seed", str(WHOLE_EVERY), "--steps", "20", "--json"))
    assert (told["seeds"], told["whole"]) == (1, 1)
    assert told["steps"] >= 20


def test_a_failure_is_shown_and_repeated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A book that takes every order for granted once it was refused."""
    post = book_commands.post_command

    def forgetful(state, command, doubtful):
        state.requests.pop(command.command_id, None)
        return post(state, command, doubtful)

    monkeypatch.setattr(book_commands, "post_command", forgetful)
    assert simulate(1, 40, 60, as_json=False) == 1
    said = capsys.readouterr().out
    seed = said.split("seed ")[1].partition(",")[0]
    assert f"Again: mirrorpoint simulate --seed {seed} --steps 60" in said
    table = said.split("fails in this way:")[1].splitlines()
    steps = [line for line in table if line.startswith("20")]
    assert 2 <= len(steps) <= 8, said
    assert simulate(int(seed), 1, 60, as_json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] == int(seed)
    assert told["again"] in said


def test_progress_is_for_terminals_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(1, 1, 5, as_json=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True, raising=False)
    simulate(1, 1, 5, as_json=True)
    assert "0 of 1 seeds" in capsys.readouterr().err


def test_which_way_a_seed_goes_follows_from_it() -> None:
    with Stage() as stage:
        assert "members" in stage.story_of(2 * WHOLE_EVERY, 10)[0]
        assert "members" not in stage.story_of(2 * WHOLE_EVERY + 1, 10)[0]
        assert stage.story_of(7, 30) == stage.story_of(7, 30)
