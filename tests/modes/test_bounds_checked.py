"""All other kernels equal their twins bounds-checked; see `twins.py`."""

import pytest

from tests.modes.twins import hold_again


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kernels_equal_their_twins():
    hold_again("bounds-checked", "all else")
