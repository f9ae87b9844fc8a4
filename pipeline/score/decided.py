"""Which visits were decided: what was said of a visit stays, also when its packets come again.

A visit's id is made of the session that opened it. So packets that come a second time, after the
visit was closed, open a visit of the same id, perhaps under other rules. What was decided then was
told to others and cannot be taken back: a visit that opens with an id that was decided is a repeat.
Its versions are counted (`VISIT_AGAIN`) and neither written nor decided, until it closes. The first
row, decision and click stand.

For ever: ids of the journal's decisions are remembered, 16 bytes each, in one sorted array, so that
ten years of 100,000 visits a day are 5.8 GB and a year 0.6 GB. Nothing shorter would do, because
no input is too old to be read. Which repeats are open survives between units of input; they are
never more than there are open visits.

Rows count in their order, however they are cut into batches.
"""

from __future__ import annotations

import numpy as np

from pipeline.model.batches import VisitBatch
from pipeline.model.columns import id_words, ids
from pipeline.model.faults import Skip
from pipeline.model.stage import Snapshot
from pipeline.model.tally import Tally
from pipeline.model.words import VisitTrigger
from pipeline.score.decide import STAGE, is_due

RECENT_MAX = 65_536  # ids outside the sorted array


class Decided:
    """The ids of visits that were decided, and the repeats of them that are open."""

    def __init__(self) -> None:
        self._known = np.zeros((0, 2), np.uint64)  # by the first word
        self._recent: set[bytes] = set()
        self._repeats: set[bytes] = set()

    def remember(self, visit_id: np.ndarray) -> None:
        """Take ids that were decided before (an ID column)."""
        if len(visit_id):
            known = np.concatenate([self._known, id_words(visit_id)])
            self._known = known[np.argsort(known[:, 0], kind="stable")]

    def part(self, visits: VisitBatch, tally: Tally) -> tuple[VisitBatch, VisitBatch]:
        """Of these versions those that are to be written, and of them those to be decided now."""
        due, names = is_due(visits), visits.visit_id.tolist()
        recent = np.fromiter(map(self._recent.__contains__, names), np.bool_, len(names))
        known = self._are_known(visits.visit_id) | recent
        opened = visits.trigger == VisitTrigger.OPENED
        telling = np.flatnonzero(opened | due)
        told = {names[row] for row in telling.tolist()}
        # Where nothing comes again, and no id is told of twice, rows do not depend on each other.
        if self._repeats or (opened & known).any() or len(told) < len(telling):
            written, decided = self._part_in_turn(visits, names, known, due)
        else:
            written, decided = np.ones(len(names), np.bool_), due & ~known
            self._recent.update(names[row] for row in np.flatnonzero(decided).tolist())
        if len(self._recent) > RECENT_MAX:
            self.remember(ids(self._recent))
            self._recent.clear()
        tally.add(STAGE, f"skip:{Skip.VISIT_AGAIN.name.lower()}", int(np.count_nonzero(~written)))
        if written.all():
            return visits, visits.take(decided)
        return visits.take(written), visits.take(decided)

    def _part_in_turn(
        self, visits: VisitBatch, names: list[bytes], was_known: np.ndarray, due: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which rows are written, and which decided, one after the other."""
        written, decided = np.ones(len(names), np.bool_), np.zeros(len(names), np.bool_)
        triggers = visits.trigger.tolist()
        for row, visit_id in enumerate(names):
            known = was_known[row] or visit_id in self._recent
            if known and triggers[row] == VisitTrigger.OPENED:
                self._repeats.add(visit_id)
            if visit_id in self._repeats:
                written[row] = False
                if triggers[row] == VisitTrigger.CLOSED:
                    self._repeats.remove(visit_id)
            elif due[row] and not known:
                decided[row] = True
                self._recent.add(visit_id)
        return written, decided

    def snapshot(self) -> dict[str, np.ndarray]:
        """The open repeats, as an ID column; what was decided stands in the journal."""
        return {"repeats": np.frombuffer(b"".join(sorted(self._repeats)), np.uint8)}

    def restore(self, snapshot: Snapshot) -> None:
        """Take the open repeats of a snapshot; one of before them has none."""
        raw = snapshot["repeats"].tobytes() if "repeats" in snapshot else b""
        self._repeats = {raw[at : at + 16] for at in range(0, len(raw), 16)}

    def _are_known(self, visit_id: np.ndarray) -> np.ndarray:
        """Which of these ids are in the sorted array (bool)."""
        asked, known = id_words(visit_id), self._known
        found = np.zeros(len(asked), np.bool_)
        if not len(known):
            return found
        at = np.searchsorted(known[:, 0], asked[:, 0])
        first = known[np.minimum(at, len(known) - 1), 0]
        for row in np.flatnonzero(first == asked[:, 0]).tolist():
            place = int(at[row])
            while place < len(known) and known[place, 0] == asked[row, 0]:
                found[row] |= bool(known[place, 1] == asked[row, 1])
                place += 1
        return found
