"""The stages in line, without any I/O: facts, packets and messages in, rows of the journal out.

Every method takes a batch and gives the rows it led to, as (stream, batch) pairs in the order in
which they belong into the journal. The engine keeps no order of its own between its inputs: whoever
drives it (run/ingest.py) pushes facts no later than the packets they speak of. Facts may run ahead
of packets, since every question about them names the time at which they have to be known; a
withdrawal may not (held bytes are dropped when it arrives), so packets are cut there.

A block of packets holds few sessions, and a call of the stages behind costs the better part of a
millisecond however few there are. So sessions wait in classify until there are a thousand, or until
anything else is asked of the engine; what becomes of them is the same, since every timer goes by
the time in the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from pipeline.classify.stage import SESSIONS_AT_ONCE, Classify
from pipeline.enrich.directory import Directory
from pipeline.enrich.stage import Enrich
from pipeline.kernels.circle import Circle
from pipeline.model.batches import (
    BasisBatch,
    BindingBatch,
    CircleBatch,
    DecisionBatch,
    MemberFactBatch,
    MessageBatch,
    OrderBatch,
    PacketBatch,
    PurchaseBatch,
    SessionBatch,
    SignInBatch,
    VisitBatch,
)
from pipeline.model.columns import Batch, concat, no_ids
from pipeline.model.identifiers import Keys, words_of
from pipeline.model.settings import EngineSettings
from pipeline.model.stage import END_OF_TIME, Snapshot
from pipeline.model.tally import Tally
from pipeline.model.words import ParseFor, outside
from pipeline.rulebook.model import Rulebook
from pipeline.score.decide import Decide
from pipeline.score.decided import Decided
from pipeline.score.intake import Intake
from pipeline.score.member_facts import member_commands
from pipeline.score.orders import order_commands

Rows = list[tuple[str, Batch]]


class Engine:
    """One operator's path from input to journal rows. Deterministic for (rulebook, keys, seed,
    input).
    """

    def __init__(
        self, rulebook: Rulebook, keys: Keys, seed: bytes, settings: EngineSettings
    ) -> None:
        self.tally = Tally()
        self.rulebook = rulebook
        self.circle = Circle(words_of(keys.address))
        self.directory = Directory(keys, seed)
        self.enrich = Enrich(rulebook, self.circle, self.directory, keys)
        self.decide = Decide(rulebook, keys)
        self.decided = Decided()
        self.intake = Intake(rulebook, keys, self.directory)
        self._keys, self._settings = keys, settings
        self.classify = self._fresh_classify()

    @property
    def parse_for(self) -> ParseFor:
        """Whose payload may be read."""
        return self._settings.parse_for

    def _fresh_classify(self) -> Classify:
        return Classify(
            circle=self.circle,
            parse_for=self._settings.parse_for,
            keys=self._keys,
            subscriber_prefixes=self._settings.subscriber_prefixes,
            at_once=SESSIONS_AT_ONCE,
        )

    def circle_changes(self, batch: CircleBatch) -> Rows:
        """Take changes of the circle; whoever leaves the parse set is forgotten at once where bytes
        are held.
        """
        rows = self._sessions(self.classify.take(self.tally))
        basis = self.directory.push_circle(batch, self.tally)
        self.circle.set_basis(basis)
        gone = np.unique(basis.subscriber[np.isin(basis.state, outside(self.parse_for))])
        if len(gone):
            self.classify.forget(gone)
        return [*rows, ("basis", basis)]

    def sign_ins(self, batch: SignInBatch) -> Rows:
        """Take sign-ins; outsiders leave no trace but the end of a member's interval."""
        rows = self._sessions(self.classify.take(self.tally))
        bindings = self.directory.push_signins(batch, self.circle, self.tally)
        self.circle.bind(bindings)
        self.enrich.push_facts(bindings)
        return [*rows, ("bindings", bindings)]

    def packets(self, batch: PacketBatch) -> Rows:
        """Take packets, whose facts have been pushed before."""
        return self._sessions(self.classify.push(batch, self.tally))

    def purchases(self, batch: MessageBatch) -> Rows:
        """Take messages of partners; what cannot be read is parked, not lost."""
        return [("purchases", self.intake.push(batch, self.tally))]

    def members(self, batch: MemberFactBatch) -> Rows:
        """Take what is said of members: tenure, level, products."""
        return [("commands", member_commands(batch, self.directory, self._keys, self.tally))]

    def orders(self, batch: OrderBatch) -> Rows:
        """Take orders that spend points."""
        return [("commands", order_commands(batch, self.directory, self._keys, self.tally))]

    def advance(self, watermark_ns: int) -> Rows:
        """Let time pass: what timed out before `watermark_ns` is finished."""
        rows = self._sessions(self.classify.advance(watermark_ns, self.tally))
        return rows + self._visits(self.enrich.advance(watermark_ns, self.tally))

    def pause(self) -> Rows:
        """The unit of input ends, time does not: flows are given up, visits written down."""
        rows = self._sessions(self.classify.advance(END_OF_TIME, self.tally))
        rows += self._visits(self.enrich.pause(self.tally))
        self.classify = self._fresh_classify()
        return rows

    def finish(self) -> Rows:
        """The end of all input: everything still open is closed."""
        return self.advance(END_OF_TIME)

    def _sessions(self, sessions: SessionBatch) -> Rows:
        """What sessions lead to."""
        return self._visits(self.enrich.push(sessions, self.tally)) if len(sessions) else []

    def _visits(self, visits: VisitBatch) -> Rows:
        if not len(visits):
            return []
        visits, due = self.decided.part(visits, self.tally)
        decisions, clicks = self.decide.push(due, self.tally)
        return [("visits", visits), ("decisions", decisions), ("clicks", clicks)]

    def remember(
        self,
        bindings: Iterable[Batch],
        basis: Iterable[Batch],
        purchases: Iterable[Batch],
        decisions: Iterable[Batch],
    ) -> None:
        """Take rows of the journal, unsealed, as if they had just been given out."""
        held = [batch for batch in bindings if isinstance(batch, BindingBatch)]
        stood = [batch for batch in basis if isinstance(batch, BasisBatch)]
        bound, standing = self.directory.restore(
            concat([BindingBatch.empty(), *held]), concat([BasisBatch.empty(), *stood])
        )
        self.circle.set_basis(standing)
        self.circle.bind(bound)
        for batch in purchases:
            assert isinstance(batch, PurchaseBatch)
            self.intake.remember(batch)
        decided = [batch.visit_id for batch in decisions if isinstance(batch, DecisionBatch)]
        self.decided.remember(np.concatenate([no_ids(0), *decided]))

    def snapshot(self) -> dict[str, np.ndarray]:
        """What has to survive between units of input: the visits and trackers of enrich, and which
        visits are repeats.
        """
        parts = {"enrich": self.enrich.snapshot(), "decided": self.decided.snapshot()}
        return {f"{part}.{name}": a for part, arrays in parts.items() for name, a in arrays.items()}

    def restore(self, snapshot: Snapshot) -> None:
        """Take a snapshot made with the same keys, under whatever rulebook."""
        for part, restore in (("enrich.", self.enrich.restore), ("decided.", self.decided.restore)):
            found: Mapping[str, np.ndarray] = {
                name.removeprefix(part): values
                for name, values in snapshot.items()
                if name.startswith(part)
            }
            restore(found)


def join_rows(rows: Rows) -> Rows:
    """Join neighbouring batches of one stream and drop empty ones."""
    joined: dict[str, list[Batch]] = {}
    for stream, batch in rows:
        if len(batch):
            joined.setdefault(stream, []).append(batch)
    return [(stream, concat(batches)) for stream, batches in joined.items()]
