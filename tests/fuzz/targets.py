"""All targets by name; both the guided and the compiled run read them here."""

from __future__ import annotations

from tests.fuzz.containers import CONTAINERS
from tests.fuzz.packets import PACKETS
from tests.fuzz.streams import STREAMS

TARGETS = {target.name: target for target in (*CONTAINERS, *PACKETS, *STREAMS)}
