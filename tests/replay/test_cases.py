"""Every case under replay_pcaps/ comes to the tables that lie beside it."""

import shutil
import tomllib

import pytest

from pipeline.run.expected import FOLDER, TABLES
from tests.commands import FIRST_DAY, done, replayed
from tests.need import REPOSITORY

CASES = sorted(path.parent for path in (REPOSITORY / "replay_pcaps").glob("*/case.toml"))


def test_there_are_cases():
    assert FIRST_DAY in CASES


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_expected_tables(case, tmp_path):
    copy = tmp_path / "case"
    shutil.copytree(case, copy)
    shutil.rmtree(copy / FOLDER)
    done("replay", copy, "--state", tmp_path / "state", "--update")
    for name in TABLES:
        found = (copy / FOLDER / f"{name}.tsv").read_text()
        assert found == (case / FOLDER / f"{name}.tsv").read_text(), name


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_expected_counts(case, tmp_path):
    expect = tomllib.loads((case / "case.toml").read_text())["expect"]
    report = replayed(case, state=tmp_path / "state")
    assert expect
    for name, wanted in expect.items():
        if isinstance(wanted, dict):
            # What the case does not list must not be there either; a zero says so aloud.
            found = {word: count for word, count in report[name].items() if count}
            assert found == {word: count for word, count in wanted.items() if count}, name
        else:
            assert report[name] == wanted, name
