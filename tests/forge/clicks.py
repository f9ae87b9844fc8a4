"""What the engine hands out for a forged capture: the first of the two passes of a forge.

A purchase names the click that was handed out for its visit, and an own shop the token of its
member. Both follow from the capture, the sign-ins, the case's seed and the rules, so they are not
invented but asked for: the capture goes through the same engine as in a replay, and nothing is
stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.engine import Engine, Rows
from pipeline.model.batches import STREAMS
from pipeline.model.columns import Batch, concat
from pipeline.model.identifiers import Keys
from pipeline.model.settings import EngineSettings
from pipeline.model.tally import Tally
from pipeline.model.words import ParseFor
from pipeline.rulebook.read import load
from pipeline.run.cases import parse_prefix
from pipeline.run.ingest import ingest
from pipeline.run.inputs import PacketFeed, read_facts, sort_files


@dataclass(frozen=True, slots=True)
class Pass:
    """The journal rows of a pass by stream, its engine and its counts."""

    rows: dict[str, Batch]
    engine: Engine
    tally: Tally

    def subscriber(self, login: str) -> bytes:
        """The id of the member with this login."""
        index = self.engine.directory.subscriber_of(login)
        assert index >= 0, f"{login} is nobody in the circle"
        return self.engine.directory.subscriber_ids[index].tobytes()

    def token(self, partner: str, login: str) -> str:
        """The token under which a shop knows a member."""
        return self.engine.directory.member_token(
            partner, self.engine.directory.subscriber_of(login)
        )

    def clicks(self, login: str, partner: str) -> list[tuple[int, bytes]]:
        """Time and id of a member's clicks to a partner, in order."""
        clicks, mine = self.rows["clicks"], self.subscriber(login)
        return [
            (int(clicks.clicked_ns[row]), clicks.click_id[row].tobytes())
            for row in range(len(clicks))
            if clicks.subscriber_id[row].tobytes() == mine and clicks.partner.text(row) == partner
        ]


def run_stages(
    files: Sequence[Path], seed: str, subscribers: Sequence[str], parse_for: ParseFor
) -> Pass:
    """Put files through the engine under the shipped rules, as a replay of the case would."""
    tally = Tally()
    settings = EngineSettings(parse_for, tuple(parse_prefix(p) for p in subscribers))
    engine = Engine(load(None), Keys.from_seed(seed), seed.encode(), settings)
    engine.tally = tally
    sorted_files = sort_files(list(files))
    feed = PacketFeed(sorted_files.captures, tally)
    kept: dict[str, list[Batch]] = {}

    def emit(rows: Rows) -> None:
        for stream, batch in rows:
            kept.setdefault(stream, []).append(batch)

    try:
        ingest(engine, read_facts(sorted_files.texts, tally), feed, emit, lambda cut: None)
    finally:
        feed.close()
    rows = {
        stream: concat(kept[stream]) if stream in kept else batch_class.empty()
        for stream, batch_class in STREAMS.items()
    }
    return Pass(rows, engine, tally)
