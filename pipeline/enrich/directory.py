"""Who is a subscriber, and whose address begins or ends: from logins to ids and intervals.

Given changes of the circle and sign-ins as they arrive, the directory gives the rows of the streams
`basis` and `bindings`. Only the circle makes subscribers; a login it does not name is an outsider,
and of an outsider no row is written and neither login nor address is kept (`outsiders.py` tells
what is remembered for a while).

    who signs in       says                          gives
    a member           START, INTERIM on a prefix    BIND, unless the member holds it already
    a member           STOP                          END, unless somebody else holds it
    an outsider        START, INTERIM on a prefix    END of every member's prefix it overlaps
    an outsider        STOP                          nothing

A member is a subscriber whose latest known basis is listed or consented; one who refused or left
signs in as an outsider. INTERIM counts as START, because it is the first we hear of an interval
that began before the subscriber joined the circle. Who holds a prefix is asked at the sign-in's
event time, so a late message ends what was then, not what is now; and a late START that an outsider
has overtaken is ended, as it is bound, at the outsider's time. A BIND ends whatever was on the
same prefix; a wider one also ends the narrower prefixes of others, which would otherwise win as the
longer match.

A login leaves this module in two ways only: as the subscriber's id, drawn from the seed with a key,
and in the sealed column of a row about a member. In memory there are ids and keyed hashes, not
logins. A sign-in takes 25 to 55 microseconds, which is enough for an operator's sign-ins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.enrich.directory_kernels import prefix_fact
from pipeline.enrich.outsiders import Outsiders
from pipeline.kernels.circle import NOBODY, Circle, bases
from pipeline.model.addresses import MAPPED, WORD, cut_prefix, prefix_hash
from pipeline.model.batches import BasisBatch, BindingBatch, CircleBatch, SignInBatch
from pipeline.model.columns import ID_DTYPE, TextColumn, ids
from pipeline.model.faults import Fault, Skip
from pipeline.model.identifiers import NO_ID, Keys, digest
from pipeline.model.stage import END_OF_TIME
from pipeline.model.tally import Tally
from pipeline.model.words import Basis, BindingKind, SignIn

STAGE = "directory"
MEMBER = (int(Basis.LISTED), int(Basis.CONSENTED))
BASES = (Basis.LISTED, Basis.CONSENTED, Basis.REFUSED, Basis.LEFT)
Prefix = tuple[int, int, int]  # high word, low word, length of the 128 bits


@dataclass(frozen=True, slots=True)
class _Row:
    """One sign-in on its way."""

    kind: int
    prefix: Prefix
    event_ns: int
    received_ns: int
    row: int
    login: str


class Directory:
    """Gives subscribers their ids and dense indexes, and turns sign-ins into intervals."""

    def __init__(self, keys: Keys, seed: bytes) -> None:
        self._keys, self._seed = keys, seed
        self._index: dict[bytes, int] = {}
        self._logins: dict[bytes, int] = {}  # by keyed hash: ids may come from earlier seeds
        self._tokens: dict[str, dict[str, int]] = {}
        self._column = np.zeros(0, ID_DTYPE)
        self._outsiders = Outsiders(keys.address)

    @property
    def subscriber_ids(self) -> np.ndarray:
        """The id of every subscriber by dense index (ID column)."""
        if len(self._column) < len(self._index):
            self._column = ids(self._index)
        return self._column

    def subscriber_of(self, login: str) -> int:
        """The dense index of a login, -1 for an outsider."""
        return self._logins.get(self._hash_of(login), NOBODY)

    def member_token(self, partner: str, index: int) -> str:
        """The name under which this partner, and no other, knows the subscriber."""
        subscriber_id = self.subscriber_ids[index].tobytes()
        return digest(self._keys.link, "member", partner, subscriber_id).hex()

    def by_token(self, partner: str, token: str) -> int:
        """The dense index of the subscriber with this token at this partner, -1 for nobody."""
        known = self._tokens.setdefault(partner, {})
        for index in range(len(known), len(self._index)):
            known[self.member_token(partner, index)] = index
        return known.get(token.strip().lower(), NOBODY)

    def push_circle(self, batch: CircleBatch, tally: Tally) -> BasisBatch:
        """Take changes of the circle; whom it names for the first time becomes a subscriber.

        Rows without a login or with a state that is none are counted as faults.
        """
        state = batch.state
        named = np.diff(batch.login.offsets) > 0
        good = named & np.isin(state, BASES)
        tally.add(STAGE, "circle", len(batch))
        tally.add(STAGE, f"fault:{Fault.LOGIN_MISSING.name.lower()}", int((~named).sum()))
        tally.add(STAGE, f"fault:{Fault.STATE_UNKNOWN.name.lower()}", int((named & ~good).sum()))
        kept = batch.take(good)
        index = [self._enter(login) for login in kept.login.to_list()]
        subscriber = np.array(index, np.int32)
        subscriber_id = self.subscriber_ids[subscriber]
        facts = zip(
            subscriber_id.tolist(),
            kept.state.tolist(),
            kept.terms.to_list(),
            kept.event_ns.tolist(),
            kept.received_ns.tolist(),
            kept.row.tolist(),
            strict=True,
        )
        return BasisBatch(
            basis_id=ids(digest(self._keys.visit, "basis", *fact) for fact in facts),
            subscriber=subscriber,
            subscriber_id=subscriber_id,
            state=kept.state,
            terms=kept.terms,
            login=kept.login,
            event_ns=kept.event_ns,
            received_ns=kept.received_ns,
        )

    def push_signins(self, batch: SignInBatch, circle: Circle, tally: Tally) -> BindingBatch:
        """Take sign-ins; `circle` holds every binding and basis that this directory gave before.

        Rows without a login, with an unknown kind or without a prefix are counted as faults.
        """
        out = _Bindings(self._keys, circle)
        tally.add(STAGE, "sign_in", len(batch))
        for row in _rows(batch, tally):
            index = self.subscriber_of(row.login)
            member = index >= 0 and _basis(circle, index, row) in MEMBER
            before = len(out.rows)
            self._outsiders.learn(row.prefix[2])
            if row.kind == SignIn.STOP:
                # A member's counts even when nobody is known to hold the address: it may have
                # overtaken its start, which would bind without an end.
                holder = out.holder(row.prefix, row.event_ns)
                if index >= 0 and (holder == index or (member and holder == NOBODY)):
                    out.end(row, row.prefix)
            elif member:
                if out.begin(row, index):
                    self._end_overtaken(out, row, index)
            else:
                self._outsiders.note(row.prefix, row.event_ns)
                for prefix in out.overlapping(row.prefix, row.event_ns):
                    out.end(row, prefix)
            if len(out.rows) == before:
                skip = Skip.UNCHANGED if member else Skip.OUTSIDER_SIGN_IN
                tally.add(STAGE, f"skip:{skip.name.lower()}")
        return out.batch(self.subscriber_ids, tally)

    def _end_overtaken(self, out: _Bindings, row: _Row, index: int) -> None:
        """End what was just bound where an outsider has come to it since."""
        since = self._outsiders.next_after(row.prefix, row.event_ns)
        if since is not None and out.holder(row.prefix, since) == index:
            out.end(replace(row, event_ns=since), row.prefix)

    def restore(self, bindings: BindingBatch, basis: BasisBatch) -> tuple[BindingBatch, BasisBatch]:
        """Learn the subscribers anew from the journal; gives the rows back with their indexes.

        The circle named every subscriber first, so the order of `basis` gives the same indexes.
        Logins come from its sealed column; one whose key was destroyed stays a stranger.
        """
        who = [self._admit(value) for value in basis.subscriber_id.tolist()]
        for index, login in zip(who, basis.login.to_list(), strict=True):
            if login:
                self._logins[self._hash_of(login)] = index
        held = [
            self._admit(value) if value != NO_ID else NOBODY
            for value in bindings.subscriber_id.tolist()
        ]
        return (
            bindings.with_columns(subscriber=np.array(held, np.int32)),
            basis.with_columns(subscriber=np.array(who, np.int32)),
        )

    def _enter(self, login: str) -> int:
        """The index of a login in the circle; a new one draws its id from the seed."""
        hashed = self._hash_of(login)
        if hashed not in self._logins:
            subscriber_id = digest(self._keys.identity, "subscriber", self._seed, login)
            self._logins[hashed] = self._admit(subscriber_id)
        return self._logins[hashed]

    def _hash_of(self, login: str) -> bytes:
        return digest(self._keys.identity, "login", login)

    def _admit(self, subscriber_id: bytes) -> int:
        return self._index.setdefault(subscriber_id, len(self._index))


class _Bindings:
    """The rows a batch of sign-ins leads to, which later rows of the batch already count with."""

    def __init__(self, keys: Keys, circle: Circle) -> None:
        self.keys, self.arrays = keys, circle.arrays
        self.rows: list[tuple[_Row, Prefix, int]] = []
        self.fresh: dict[Prefix, list[tuple[int, int, int]]] = {}  # event, received, subscriber
        self.fresh_lengths: dict[bool, set[int]] = {True: set(), False: set()}  # by is_v4

    def begin(self, row: _Row, index: int) -> bool:
        """The member holds this prefix from now on; False where that is no news."""
        held = self.holder(row.prefix, row.event_ns) == index
        if held and row.kind == SignIn.INTERIM:
            return False
        for prefix in self.overlapping(row.prefix, row.event_ns):
            narrower = prefix[2] > row.prefix[2]
            if narrower and self.holder(prefix, row.event_ns) != index:
                self.end(row, prefix)
        if not held:
            self._add(row, row.prefix, index)
        return not held

    def end(self, row: _Row, prefix: Prefix) -> None:
        """Whoever held this prefix does so no longer."""
        self._add(row, prefix, NOBODY)

    def _add(self, row: _Row, prefix: Prefix, index: int) -> None:
        self.rows.append((row, prefix, index))
        self.fresh.setdefault(prefix, []).append((row.event_ns, row.received_ns, index))
        self.fresh_lengths[is_v4(prefix)].add(prefix[2])

    def holder(self, prefix: Prefix, t: int) -> int:
        """The subscriber who holds exactly this prefix at event time `t`, or -1."""
        hi, lo, length = prefix
        fact = int(prefix_fact(self.arrays, np.uint64(hi), np.uint64(lo), length, t))
        best = (-END_OF_TIME, -END_OF_TIME, NOBODY)
        if fact >= 0:
            best = self.arrays.facts[fact].item()[:3]
        for one in self.fresh.get(prefix, ()):
            if one[0] <= t and one[:2] >= best[:2]:
                best = one
        return best[2]

    def overlapping(self, prefix: Prefix, t: int) -> list[Prefix]:
        """The prefixes over, under or equal to this one that a subscriber holds, widest first."""
        hi, lo, length = prefix
        a = self.arrays
        found = set()
        known = a.lengths4 if is_v4(prefix) else a.lengths6
        fresh = self.fresh_lengths[is_v4(prefix)]
        for wide in {int(n) for n in known} | fresh:
            if wide <= length:
                found.add(cut_prefix(hi, lo, wide))
        if any(int(n) > length for n in known):
            found.update(self._under(prefix))
        if any(n > length for n in fresh):
            found.update(
                p for p in self.fresh if p[2] > length and cut_prefix(*p[:2], length) == prefix
            )
        held = [p for p in found if self.holder(p, t) >= 0]
        return sorted(held, key=lambda p: (p[2], p))

    def _under(self, prefix: Prefix) -> list[Prefix]:
        """Narrower prefixes of the tables: a walk over all slots, for the rare mixed lengths."""
        hi, lo, length = prefix
        table = self.arrays.prefixes
        mask_hi, mask_lo = cut_prefix(WORD, WORD, length)[:2]
        found = table[
            (table["newest"] > 0)
            & (table["bits"] > length)
            & (table["hi"] & np.uint64(mask_hi) == np.uint64(hi))
            & (table["lo"] & np.uint64(mask_lo) == np.uint64(lo))
        ]
        columns = (found[name].tolist() for name in ("hi", "lo", "bits"))
        return list(zip(*columns, strict=True))

    def batch(self, subscriber_ids: np.ndarray, tally: Tally) -> BindingBatch:
        """All rows as a batch."""
        rows = [row for row, _, _ in self.rows]
        prefixes = [prefix for _, prefix, _ in self.rows]
        subscriber = np.array([index for _, _, index in self.rows], np.int32)
        bound = subscriber >= 0
        kind = np.where(bound, BindingKind.BIND, BindingKind.END).astype(np.uint8)
        subscriber_id = np.zeros(len(rows), ID_DTYPE)
        subscriber_id[bound] = subscriber_ids[subscriber[bound]]
        hashes = [prefix_hash(self.keys.address, *prefix) for prefix in prefixes]
        logins = [row.login if index >= 0 else "" for row, _, index in self.rows]
        tally.add(STAGE, "bind", int(bound.sum()))
        tally.add(STAGE, "end", int((~bound).sum()))
        facts = zip(kind.tolist(), hashes, subscriber_id.tolist(), rows, strict=True)
        return BindingBatch(
            binding_id=ids(
                digest(self.keys.visit, "binding", *fact, row.event_ns, row.received_ns, row.row)
                for *fact, row in facts
            ),
            kind=kind,
            subscriber=subscriber,
            subscriber_id=subscriber_id,
            address_hi=np.array([p[0] for p in prefixes], np.uint64),
            address_lo=np.array([p[1] for p in prefixes], np.uint64),
            prefix_length=np.array([p[2] for p in prefixes], np.uint8),
            address_hash=ids(hashes),
            login=TextColumn.of(logins),
            event_ns=np.array([row.event_ns for row in rows], np.int64),
            received_ns=np.array([row.received_ns for row in rows], np.int64),
        )


def _rows(batch: SignInBatch, tally: Tally) -> list[_Row]:
    """The good rows of a batch; the others are counted."""
    named = np.diff(batch.login.offsets) > 0
    known = np.isin(batch.kind, (SignIn.START, SignIn.INTERIM, SignIn.STOP))
    sized = (batch.prefix_length >= 1) & (batch.prefix_length <= 128)
    tally.add(STAGE, "fault:login_missing", int((~named).sum()))
    tally.add(STAGE, "fault:state_unknown", int((named & ~known).sum()))
    tally.add(STAGE, "fault:address_bad", int((named & known & ~sized).sum()))
    good = batch.take(named & known & sized)
    columns = (
        good.kind,
        good.address_hi,
        good.address_lo,
        good.prefix_length,
        good.event_ns,
        good.received_ns,
        good.row,
    )
    values = zip(*(column.tolist() for column in columns), good.login.to_list(), strict=True)
    return [
        _Row(kind, cut_prefix(hi, lo, length), event_ns, received_ns, row, login)
        for kind, hi, lo, length, event_ns, received_ns, row, login in values
    ]


def _basis(circle: Circle, index: int, row: _Row) -> int:
    """The latest basis of a subscriber that was known when the sign-in arrived."""
    if index >= len(circle.arrays.standings):
        return int(Basis.UNKNOWN)
    now = np.array([max(row.event_ns, row.received_ns)], np.int64)
    known, found = np.array([row.received_ns], np.int64), np.zeros(1, np.uint8)
    bases(circle.arrays, np.array([index], np.int32), now, known, found)
    return int(found[0])


def is_v4(prefix: Prefix) -> bool:
    """Is this an IPv4 prefix in its 128-bit form?"""
    return prefix[0] == 0 and prefix[1] >> 32 == MAPPED >> 32
