"""What an operator states before traffic may be read; there is no default."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.model.words import ParseFor

Prefix = tuple[int, int, int]  # high word, low word, length of the 128 bits


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Whose payload may be read, and which side of a flow is the subscriber's.

    Without `subscriber_prefixes` any address may be a subscriber's, and what is bound to nobody
    counts as unbound.
    """

    parse_for: ParseFor
    subscriber_prefixes: tuple[Prefix, ...] = ()
