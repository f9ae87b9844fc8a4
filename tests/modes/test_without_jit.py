"""All other kernels equal their twins without JIT; see `twins.py`."""

import pytest

from tests.modes.twins import hold_again


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kernels_equal_their_twins():
    hold_again("without-jit", "all else")
