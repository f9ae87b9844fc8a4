"""Sessions become visits; names of nobody are counted and forgotten.

Given sessions in the order in which they were seen, and facts about addresses as they were
received, `Enrich` asks whose each name is, folds the sessions of a subscriber with a partner into
visits, and writes a version of a visit down whenever something happened that decides about it:

    OPENED    its first session
    DOCUMENT  its first plain-HTTP document, unless that opened it
    MARKED    an affiliate mark or a tracker became known, or that the address was somebody else's
    PAUSED    the unit of input ended while it was open
    CLOSED    the watermark passed its last session by the gap and the lateness of the policy

A session belongs to the earliest open visit of its subscriber and partner that it is less than a
gap away from, else it opens one. An id is hashed from the session that opened the visit and never
changes. `first_ns` and `last_ns` follow the sessions; `basis` is that of the latest one. The way of
arrival is that of the first document, or until there is one of the opening session; a mark
overrides it. What was passed of trackers counts for a visit when it lay in the policy's window
before its first session.

A visit is ambiguous when, by all facts known at some moment while it was open, the address of one
of its sessions changed hands within the guard time, or was not the subscriber's at all; when what
one of its sessions said its name was cannot be relied upon; and when the flow that opened it, or
that showed its document, says something later that cannot be, whatever name that has: what it said
first may have been said to mislead.

What leaves this module has no host, no target and no referer: a partner, a class, the name of a
mark.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np

from pipeline.enrich.directory import Directory
from pipeline.enrich.marks_kernels import find_marks
from pipeline.enrich.state_kernels import (
    COUNT_FACT,
    COUNT_NEEDED,
    COUNT_OPENED,
    COUNT_OUT,
    COUNT_ROW,
    FIELDS,
    PACKET,
    SERVER_HI,
    SERVER_LO,
    SERVER_PORT,
    SOURCE,
)
from pipeline.enrich.visits import Limits, Names, Renumbered, VisitState, visit_batch
from pipeline.enrich.visits_kernels import Facts, Sessions, Terms, fold
from pipeline.kernels.circle import NOBODY, Circle
from pipeline.kernels.hosts import codes_of, host_table
from pipeline.model.batches import BindingBatch, SessionBatch, VisitBatch
from pipeline.model.columns import TextColumn, concat, id_words, ids
from pipeline.model.faults import Skip
from pipeline.model.identifiers import Keys, digest, words_of
from pipeline.model.stage import Snapshot, array_text
from pipeline.model.tally import Tally
from pipeline.model.words import BindingKind, Protocol, SessionFlag, VisitTrigger
from pipeline.rulebook.model import Rulebook
from pipeline.rulebook.names import claims_of

STAGE = "enrich"
NO_TIME = int(np.iinfo(np.int64).min)
FACT_DTYPES = (np.uint64, np.uint64, np.int64, np.int32, np.int64, np.int64)


class Enrich:
    """Folds sessions under one rulebook. State: open visits, passed trackers, facts not yet due."""

    def __init__(
        self,
        rulebook: Rulebook,
        circle: Circle,
        directory: Directory,
        keys: Keys,
        limits: Limits = Limits(),  # noqa: B008  (frozen)
    ) -> None:
        self._circle, self._directory = circle, directory
        self._state = VisitState(limits)
        self._facts = _no_facts()
        self._out = np.zeros((limits.versions, FIELDS), np.int64)
        self._terms = _terms(rulebook, keys)
        drafts = [partner.status == "draft" for partner in rulebook.partners]
        self._draft = np.array([*drafts, False], np.bool_)
        claims = claims_of(rulebook.partners, rulebook.trackers)
        self._hosts = host_table(TextColumn.of(claims.names), claims.exact, claims.under)
        marks = dict.fromkeys(mark for tracker in rulebook.trackers for mark in tracker.marks)
        self._marks = TextColumn.of(marks)
        self._names = Names(
            partners=TextColumn.of(partner.id for partner in rulebook.partners),
            trackers=TextColumn.of([*(tracker.id for tracker in rulebook.trackers), ""]),
            marks=TextColumn.of([*marks, ""]),
            versions=ids(partner.version for partner in rulebook.partners),
            rulebook_hash=rulebook.hash,
        )

    def push_facts(self, facts: BindingBatch) -> None:
        """Take bindings; each counts from the first session on that was seen after its receipt.

        The circle has to know them as well by then.
        """
        columns = (
            facts.address_hi,
            facts.address_lo,
            facts.prefix_length,
            np.where(facts.kind == BindingKind.BIND, facts.subscriber, NOBODY),
            facts.event_ns,
            facts.received_ns,
        )
        joined = [
            np.concatenate([old, new]).astype(dtype)
            for old, new, dtype in zip(self._facts, columns, FACT_DTYPES, strict=True)
        ]
        order = np.argsort(joined[-1], kind="stable")
        self._facts = Facts(*(column[order] for column in joined))

    def push(self, batch: SessionBatch, tally: Tally) -> VisitBatch:
        """Take sessions; gives the versions of visits that they, and the time they took, led to."""
        skips = np.zeros(max(Skip) + 1, np.int64)
        until_ns = int(batch.watermark_ns.max(initial=NO_TIME))
        opened = int(self._state.counts[COUNT_OPENED])
        versions = self._fold(self._nameless(batch, skips), until_ns, skips, tally)
        opened = int(self._state.counts[COUNT_OPENED]) - opened
        assert len(batch) == opened + skips.sum(), "every session is opened, joined or skipped"
        tally.add(STAGE, "session", len(batch))
        tally.add(STAGE, "visit", opened)
        tally.add_counts(STAGE, Skip, skips)
        return versions

    def advance(self, watermark_ns: int, tally: Tally) -> VisitBatch:
        """Let time pass: close visits that waited long enough, apply facts received until then."""
        skips = np.zeros(max(Skip) + 1, np.int64)
        nothing = self._nameless(SessionBatch.empty(), skips)
        return self._fold(nothing, watermark_ns, skips, tally)

    def pause(self, tally: Tally) -> VisitBatch:
        """Write down every open visit that changed since its last version."""
        due = self.advance(NO_TIME, tally)
        return concat([due, self._batch(self._state.pause(), tally)])

    def snapshot(self) -> dict[str, np.ndarray]:
        """Open visits, tracker passes and waiting facts, and what their numbers stand for.

        For the same keys; the rulebook may be another by then.
        """
        facts = {f"facts.{name}": getattr(self._facts, name).copy() for name in Facts._fields}
        names = {
            "names.partners": self._names.partners.to_list(),
            "names.trackers": self._names.trackers.to_list()[:-1],
            "names.marks": self._names.marks.to_list()[:-1],
        }
        texts = {name: array_text(json.dumps(values)) for name, values in names.items()}
        return self._state.snapshot() | facts | texts

    def restore(self, snapshot: Snapshot) -> None:
        """Take a snapshot in place of what there is, by the ids of partners, trackers and marks.

        A tracker or mark that the rules no longer name keeps its name for the visits that met it;
        visits of a partner that is gone are forgotten.
        """
        partners, trackers, marks = (
            json.loads(snapshot[f"names.{what}"].tobytes())
            for what in ("partners", "trackers", "marks")
        )
        self._names = replace(
            self._names,
            trackers=_with(self._names.trackers, trackers),
            marks=_with(self._names.marks, marks),
        )
        now = Renumbered(
            partners=_numbers(partners, self._names.partners),
            trackers=_numbers(trackers, self._names.trackers),
            marks=_numbers(marks, self._names.marks),
        )
        self._state.restore(snapshot, now)
        self._facts = Facts(*(snapshot[f"facts.{name}"].copy() for name in Facts._fields))

    def _nameless(self, batch: SessionBatch, skips: np.ndarray) -> Sessions:
        """The sessions that matter, with their names looked up and left behind.

        Rows of nobody only let time pass, which the last watermark of the batch does as well.
        """
        code = codes_of(self._hosts, batch.host)
        bound = batch.subscriber >= 0
        weak = bound & (batch.flags & np.uint32(SessionFlag.WEAK) != 0)
        hidden = bound & ~weak & (batch.flags & np.uint32(SessionFlag.HIDDEN) != 0)
        skips[Skip.NAME_WEAK] = np.count_nonzero(weak)
        skips[Skip.NAME_HIDDEN] = np.count_nonzero(hidden)
        code[weak | hidden] = NOBODY
        draft = (code >= 0) & self._draft[np.maximum(code, 0)]
        skips[Skip.UNBOUND] = np.count_nonzero(~bound)
        skips[Skip.NAME_OF_NOBODY] = np.count_nonzero(bound & ~weak & ~hidden & (code == NOBODY))
        skips[Skip.PARTNER_NOT_LIVE] = np.count_nonzero(bound & draft)
        code[draft] = NOBODY
        doubtful = batch.flags & np.uint32(SessionFlag.UNRELIABLE) != 0
        kept = np.flatnonzero(bound & ((code != NOBODY) | doubtful))
        rows = len(kept)
        code, protocol = code[kept], batch.protocol[kept]
        mark = np.empty(rows, np.int32)
        wanted = ((protocol == Protocol.HTTP) & (code >= 0)).astype(np.uint8)
        target, marks = batch.target.take(kept), self._marks
        find_marks(wanted, target.data, target.offsets, marks.data, marks.offsets, mark)
        subscriber = batch.subscriber[kept]
        flow_words = id_words(batch.flow_id[kept])
        fixed = np.empty((rows, SERVER_PORT - SOURCE + 1), np.int64)
        fixed[:, 0] = batch.source_id[kept]
        fixed[:, 1:3] = flow_words.view(np.int64)
        fixed[:, PACKET - SOURCE] = batch.packet_number[kept]
        fixed[:, SERVER_HI - SOURCE] = batch.server_hi[kept].view(np.int64)
        fixed[:, SERVER_LO - SOURCE] = batch.server_lo[kept].view(np.int64)
        fixed[:, SERVER_PORT - SOURCE] = batch.server_port[kept]
        return Sessions(
            code=code,
            mark=mark,
            referred=(np.diff(batch.referer.offsets) > 0).astype(np.uint8)[kept],
            subscriber=subscriber,
            subscriber_words=id_words(self._directory.subscriber_ids[subscriber]),
            basis=batch.basis[kept],
            first_ns=batch.first_ns[kept],
            watermark_ns=batch.watermark_ns[kept],
            protocol=protocol,
            flags=batch.flags[kept],
            client_hi=batch.client_hi[kept],
            client_lo=batch.client_lo[kept],
            flow_words=flow_words,
            fixed=fixed,
        )

    def _fold(
        self, sessions: Sessions, until_ns: int, skips: np.ndarray, tally: Tally
    ) -> VisitBatch:
        rows = len(sessions.code)
        highest = int(sessions.subscriber.max()) + 1 if rows else 0
        self._state.make_room(rows, highest)
        arrays, counts = self._state.arrays, self._state.counts
        flipped = np.zeros(len(arrays.heap_visit), np.int32)
        counts[[COUNT_ROW, COUNT_FACT, COUNT_OUT]] = 0
        versions = []
        while counts[COUNT_ROW] <= rows:
            fold(
                arrays,
                self._circle.arrays,
                sessions,
                self._facts,
                until_ns,
                self._terms,
                flipped,
                skips,
                self._out,
            )
            versions.append(self._out[: counts[COUNT_OUT]].copy())
            counts[COUNT_OUT] = 0
            if counts[COUNT_NEEDED] > len(self._out):
                self._out = np.zeros((2 * int(counts[COUNT_NEEDED]), FIELDS), np.int64)
        taken = int(counts[COUNT_FACT])
        self._facts = Facts(*(column[taken:] for column in self._facts))
        return self._batch(np.concatenate(versions), tally)

    def _batch(self, versions: np.ndarray, tally: Tally) -> VisitBatch:
        batch = visit_batch(versions, self._directory.subscriber_ids, self._names)
        for trigger, count in enumerate(np.bincount(batch.trigger, minlength=1).tolist()):
            if count:
                tally.add(STAGE, f"version:{VisitTrigger(trigger).name.lower()}", count)
        return batch


def _with(names: TextColumn, more: list[str]) -> TextColumn:
    """Names, further ones, and the empty one that stays the last."""
    return TextColumn.of([*dict.fromkeys([*names.to_list()[:-1], *more]), ""])


def _numbers(names: list[str], now: TextColumn) -> np.ndarray:
    """By old number the place of a name among those of now, -1 where it is not there."""
    places = {name: place for place, name in enumerate(now.to_list())}
    return np.array([places.get(name, -1) for name in names], np.int64)


def _no_facts() -> Facts:
    return Facts(*(np.zeros(0, dtype) for dtype in FACT_DTYPES))


def _terms(rulebook: Rulebook, keys: Keys) -> Terms:
    policy = rulebook.policy
    hashed = np.zeros((1, 2), np.uint64)
    partners = ids(digest(keys.visit, "partner", partner.id) for partner in rulebook.partners)
    return Terms(
        gap_ns=policy.visit_gap_ns,
        lateness_ns=policy.lateness_ns,
        guard_ns=policy.guard_ns,
        tracker_window_ns=policy.tracker_window_ns,
        key=words_of(keys.visit),
        partner_words=id_words(partners),
        words=np.zeros((1, 7), np.uint64),
        hashed=hashed,
        hashed_signed=hashed.view(np.int64),
    )
