"""Questions of the directory to the circle's tables: who holds this very prefix?"""

from __future__ import annotations

import numpy as np

from pipeline.kernels.circle import find_slot
from pipeline.kernels.compile import kernel

U64 = np.uint64


@kernel
def fact_at(circle, hi, lo, length, t):
    """The fact that rules exactly this prefix at event time `t`, of all we know; -1 for none."""
    fact = circle.head[find_slot(circle, hi, lo, length)]
    while fact >= 0 and circle.event_ns[fact] > t:
        fact = circle.next_fact[fact]
    return np.int64(fact)
