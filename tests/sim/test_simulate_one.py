"""The first hundred seeds of `mirrorpoint simulate`, every 25th through the whole path."""

import pytest

from tests.sim.simulating import PARTS, tell

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("part", range(PARTS))
def test_stories(part):
    tell(0, part)
