"""What is measured when a command starts, and how it is shown."""

from __future__ import annotations

import sys

import pytest

from tests.bench import start
from tests.bench.start import UNWANTED, Start, environment, median, show


def script(text: str) -> list[str]:
    return ["-c", text]


@pytest.fixture(autouse=True)
def any_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "command_line", lambda: [sys.executable])


def test_compiled_modules_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(UNWANTED, "1")
    monkeypatch.setenv("KEPT", "yes")
    assert UNWANTED not in environment()
    assert environment()["KEPT"] == "yes"
    tells = "import sys; print('first'); sys.exit(sys.dont_write_bytecode)"
    assert start.seconds_to_first_row(script(tells)) > 0
    assert start.seconds_to_end(script(tells)) > 0


@pytest.mark.slow
def test_the_first_row_counts_and_not_the_end() -> None:
    slow = script("import time; print('first', flush=True); time.sleep(1)")
    assert start.seconds_to_first_row(slow) < 1 <= start.seconds_to_end(slow)


def test_a_command_that_fails_or_says_nothing_is_no_figure() -> None:
    with pytest.raises(AssertionError, match="printed nothing"):
        start.seconds_to_first_row(script(""))
    with pytest.raises(AssertionError):
        start.seconds_to_first_row(script("print('first'); raise SystemExit(1)"))


def test_one_run_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([9.0, 3.0, 1.0, 2.0])
    monkeypatch.setattr(start, "seconds_to_end", lambda arguments: next(seconds))
    assert median(["--help"], 3, to_end=True) == 2.0
    assert not list(seconds)


def test_a_slow_start_is_told() -> None:
    quick, slow = Start("sql ...", 0.5, 1.0), Start("explain ...", 1.5, 1.0)
    assert quick.good
    assert not slow.good
    lines = show([quick, slow]).splitlines()
    assert [line.endswith("TOO SLOW") for line in lines] == [False, False, True]
    assert max(map(len, lines)) <= 80
