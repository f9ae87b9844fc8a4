"""A question of a state whose ClickHouse store was lost."""

import shutil

import pytest

from tests.commands import FIRST_DAY, mirrorpoint, replayed

pytestmark = pytest.mark.slow  # a process for each question


def test_a_lost_store_is_filled_again_and_said_to_be(tmp_path):
    state = tmp_path / "state"
    report = replayed(FIRST_DAY, state=state)
    shutil.rmtree(state / "clickhouse")
    asked = "sql", "--state", state, "SELECT (SELECT count() FROM visits), count() FROM entries"
    told = mirrorpoint(*asked)
    assert told.returncode == 0, told.stderr
    assert f" {report['visits']} " in told.stdout
    assert f" {report['entries']} " in told.stdout
    assert "was lost" in told.stderr
    assert f"mirrorpoint replay {state}" in told.stderr
    assert mirrorpoint(*asked).stderr == "", "said once"
