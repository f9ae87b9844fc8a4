"""What is missing skips on a laptop and fails in CI; what is there is simply used."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest

from tests import need as needs
from tests.conftest import LONG, place_of, uses_twins
from tests.need import REPOSITORY

NOWHERE = "no-such-program-or-module"


@pytest.mark.parametrize("ci", ["true", ""])
def test_what_is_there_is_given(monkeypatch, ci):
    monkeypatch.setenv("CI", ci)
    assert needs.need("sh").endswith("/sh")
    assert needs.need("numpy") == "numpy"


def test_what_is_missing_is_skipped_on_a_laptop(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=NOWHERE):
        needs.need(NOWHERE)


@pytest.mark.parametrize("ci", ["true", "True"])
def test_what_is_missing_fails_in_ci(monkeypatch, ci):
    monkeypatch.setenv("CI", ci)
    with pytest.raises(pytest.fail.Exception, match=NOWHERE):
        needs.need(NOWHERE)


def test_the_corpus_is_never_asked_of_anybody(monkeypatch, tmp_path):
    """It cannot be in the repository, so its absence is no failure, not even in CI."""
    monkeypatch.setenv("CI", "true")
    monkeypatch.delenv("MIRRORPOINT_CORPUS", raising=False)
    monkeypatch.setattr(needs, "REPOSITORY", tmp_path / "checkout")
    with pytest.raises(pytest.skip.Exception, match="corpus"):
        needs.corpus()


def test_a_corpus_that_was_named_has_to_be_there(monkeypatch, tmp_path):
    monkeypatch.setenv("MIRRORPOINT_CORPUS", str(tmp_path))
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="packets"):
        needs.corpus()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="packets"):
        needs.corpus()
    (tmp_path / "packets").mkdir()
    assert needs.corpus() == tmp_path


def test_a_state_does_not_exist_yet(state, short_path):
    assert not state.exists()
    assert short_path.is_dir()
    assert len(str(short_path / "state" / "owner.sock")) < 100


def test_modules_that_compare_with_twins_are_known():
    class Module:
        pass

    plain, comparing = Module(), Module()
    plain.number, plain.needs = 1, needs
    twin = lambda: None  # noqa: E731
    twin.__module__ = "tests.naive.anything"
    comparing.twin = twin
    assert not uses_twins(plain)
    assert not uses_twins(None)
    assert uses_twins(comparing)
    helper, telling = lambda: None, Module()
    helper.__module__ = "tests.classify.test_track"  # compares; its stories are told elsewhere
    importlib.import_module(helper.__module__)
    telling.helper = helper
    assert uses_twins(telling)
    assert not uses_twins(telling, through=False)


def test_twins_that_no_compiler_changes_are_left_out():
    folds = ModuleType("tests.store.test_plain")
    folds.naive = ModuleType("tests.naive.folds")
    assert not uses_twins(folds)
    folds.other = ModuleType("tests.naive.tls")
    assert uses_twins(folds)


def test_long_files_begin_first():
    """A name that is no file's any more would put it last, without a word."""
    for start in LONG:
        path = REPOSITORY / start
        assert path.is_dir() or list(path.parent.glob(f"{path.name}*.py")), start
    assert place_of("tests/sim/test_crash.py::test_random_steps[1]") == 0
    assert place_of("tests/store/test_journal.py::test_any") == len(LONG)
