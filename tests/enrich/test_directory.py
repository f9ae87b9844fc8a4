"""Who is a subscriber, and whose address begins or ends."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.enrich.directory import Directory
from pipeline.enrich.outsiders import Outsiders
from pipeline.kernels.circle import Circle, holder_at
from pipeline.model.addresses import cut_prefix, parse_prefix, prefix_hash
from pipeline.model.batches import BasisBatch, BindingBatch
from pipeline.model.columns import TextColumn, concat, no_ids
from pipeline.model.identifiers import Keys, digest, words_of
from pipeline.model.stage import END_OF_TIME
from pipeline.model.tally import Tally
from pipeline.model.words import Basis, BindingKind, SignIn
from tests.enrich.stories import KEYS, circle_batch, same, signin_batch
from tests.naive.directory import NaiveDirectory

ONE, TWO = parse_prefix("192.0.2.1"), parse_prefix("192.0.2.2")
LISTED, CONSENTED, REFUSED, LEFT = (int(b) for b in (1, 2, 3, 4))
START, INTERIM, STOP = (int(k) for k in SignIn)


class Desk:
    """A directory with its circle, as the engine drives them."""

    def __init__(self, keys: Keys = KEYS, seed: bytes = b"seed") -> None:
        self.tally = Tally()
        self.directory, self.circle = Directory(keys, seed), Circle(words_of(keys.address), 1 << 4)
        self.bindings: list[BindingBatch] = []
        self.basis: list[BasisBatch] = []

    def change(self, *rows: tuple[str, int, int, int]) -> BasisBatch:
        batch = self.directory.push_circle(circle_batch(list(rows)), self.tally)
        self.circle.set_basis(batch)
        self.basis.append(batch)
        return batch

    def sign_in(self, *rows) -> list[tuple[int, int]]:
        """Kinds and subscribers of the rows that these sign-ins lead to."""
        batch = self.directory.push_signins(signin_batch(list(rows)), self.circle, self.tally)
        self.circle.bind(batch)
        self.bindings.append(batch)
        return list(zip(batch.kind.tolist(), batch.subscriber.tolist(), strict=True))

    def holder(self, prefix, t: int) -> int:
        hi, lo = np.uint64(prefix[0]), np.uint64(prefix[1])
        return int(holder_at(self.circle.arrays, hi, lo, t, END_OF_TIME))


@pytest.fixture
def desk() -> Desk:
    """Ann is a member, Ben is listed; Eve is in no circle."""
    desk = Desk()
    desk.change(("ann", CONSENTED, 1, 1), ("ben", LISTED, 1, 1))
    return desk


BIND_ANN, BIND_BEN, END = (1, 0), (1, 1), (2, -1)


def test_a_member_begins_and_stops(desk):
    assert desk.sign_in((START, "ann", ONE, 10, 11)) == [BIND_ANN]
    assert desk.sign_in((STOP, "ann", ONE, 20, 21)) == [END]
    assert [desk.holder(ONE, t) for t in (9, 10, 19, 20)] == [-1, 0, 0, -1]


def test_an_interim_that_says_nothing_new_is_skipped(desk):
    assert desk.sign_in((INTERIM, "ann", ONE, 10, 10)) == [BIND_ANN]
    assert desk.sign_in((INTERIM, "ann", ONE, 20, 20), (START, "ann", ONE, 30, 30)) == []
    assert desk.tally.as_dict()["directory"]["skip:unchanged"] == 2


def test_a_member_takes_the_address_of_another_with_the_bind_alone(desk):
    rows = [(START, "ann", ONE, 10, 10), (START, "ben", ONE, 20, 20)]
    assert desk.sign_in(*rows) == [BIND_ANN, BIND_BEN]
    assert [desk.holder(ONE, t) for t in (19, 20)] == [0, 1]


def test_an_outsider_ends_a_members_interval_without_identity(desk):
    desk.sign_in((START, "ann", ONE, 10, 10))
    assert desk.sign_in((START, "eve", ONE, 20, 20)) == [END]
    end = desk.bindings[-1]
    assert end.login.to_list() == [""]
    assert end.subscriber_id.tobytes() == bytes(16)
    assert end.address_hash.tobytes() == prefix_hash(KEYS.address, *ONE)
    assert [desk.holder(ONE, t) for t in (19, 20)] == [0, -1]


def test_a_start_that_an_outsider_overtook_is_ended_where_the_outsider_came(desk):
    assert desk.sign_in((START, "eve", ONE, 20, 20)) == []
    assert desk.sign_in((START, "ann", ONE, 10, 30)) == [BIND_ANN, END]
    end = desk.bindings[-1].slice(1, 2)
    assert (end.event_ns[0], end.received_ns[0], end.login.to_list()) == (20, 30, [""])
    assert [desk.holder(ONE, t) for t in (9, 10, 19, 20, 99)] == [-1, 0, 0, -1, -1]


@pytest.mark.parametrize("in_order", [True, False])
def test_messages_of_a_start_stop_and_outsiders_in_any_order_hold_the_same(desk, in_order):
    rows = [(START, "ann", ONE, 10), (START, "eve", ONE, 20), (START, "ann", ONE, 30),
            (START, "eve", ONE, 40)]  # fmt: skip
    order = rows if in_order else [rows[3], rows[1], rows[2], rows[0]]
    for now, row in enumerate(order, start=50):
        desk.sign_in((*row, now))
    assert [desk.holder(ONE, t) for t in (10, 20, 30, 40, 99)] == [0, -1, 0, -1, -1]


def test_outsiders_that_overlap_and_no_others_end_a_late_start(desk):
    wide, inside = parse_prefix("2001:db8:0:100::/56"), parse_prefix("2001:db8:0:105::/64")
    beside = parse_prefix("2001:db8:0:205::/64")
    desk.sign_in((STOP, "eve", wide, 1, 1))
    desk.sign_in((START, "eve", beside, 15, 15), (START, "eve", inside, 20, 20))
    assert desk.sign_in((START, "ann", wide, 10, 30)) == [BIND_ANN, END]
    assert desk.bindings[-1].event_ns.tolist() == [10, 20]
    desk.sign_in((START, "eve", wide, 50, 50))
    assert desk.sign_in((START, "ben", inside, 40, 60)) == [BIND_BEN, END]
    assert desk.bindings[-1].event_ns.tolist() == [40, 50]


def test_only_so_many_outsiders_are_remembered():
    outsiders = Outsiders(b"k" * 16, most=2)
    for when in (10, 20, 30):
        outsiders.note(ONE, when)
    assert [outsiders.next_after(ONE, t) for t in (5, 19, 20, 30)] == [20, 20, 30, None]
    assert outsiders.next_after(TWO, 5) is None
    for when in (40, 50):
        outsiders.note(TWO, when)
    assert outsiders.next_after(ONE, 5) is None


def test_an_outsider_alone_leads_to_nothing(desk):
    rows = [(kind, "eve", prefix, 10, 10) for kind in SignIn for prefix in (ONE, TWO)]
    assert desk.sign_in(*rows) == []
    assert desk.tally.as_dict()["directory"]["skip:outsider_sign_in"] == 6


def test_an_outsider_on_a_covering_prefix_ends_what_is_under_it(desk):
    wide = parse_prefix("2001:db8:0:100::/56")
    inside, beside = parse_prefix("2001:db8:0:105::/64"), parse_prefix("2001:db8:0:205::/64")
    desk.sign_in((START, "ann", inside, 10, 10), (START, "ben", beside, 10, 10))
    assert desk.sign_in((START, "eve", wide, 20, 20)) == [END]
    assert (desk.holder(inside, 20), desk.holder(beside, 20)) == (-1, 1)


def test_an_outsider_inside_a_members_prefix_ends_all_of_it(desk):
    """The longest prefix wins, and an END is no holder: only the whole can be taken back."""
    wide, inside = parse_prefix("2001:db8:0:100::/56"), parse_prefix("2001:db8:0:105::/64")
    desk.sign_in((START, "ann", wide, 10, 10))
    assert desk.sign_in((START, "eve", inside, 20, 20)) == [END]
    assert desk.holder(inside, 20) == -1


def test_a_wider_start_ends_the_narrower_ones_of_others(desk):
    wide, inside = parse_prefix("2001:db8:0:100::/56"), parse_prefix("2001:db8:0:105::/64")
    desk.sign_in((START, "ann", inside, 10, 10))
    assert desk.sign_in((START, "ben", wide, 20, 20)) == [END, BIND_BEN]
    assert desk.holder(inside, 20) == 1
    assert desk.sign_in((START, "ben", inside, 30, 30)) == [BIND_BEN]
    assert desk.sign_in((START, "ben", wide, 40, 40)) == []


def test_who_refused_or_left_signs_in_as_an_outsider(desk):
    desk.sign_in((START, "ann", ONE, 10, 10))
    desk.change(("ann", REFUSED, 20, 20))
    assert desk.sign_in((START, "ann", TWO, 30, 30)) == []
    assert desk.sign_in((START, "ann", ONE, 31, 31)) == [END]
    desk.change(("ann", CONSENTED, 40, 40))
    assert desk.sign_in((INTERIM, "ann", ONE, 50, 50)) == [BIND_ANN]


def test_the_basis_is_the_one_known_when_the_sign_in_arrived(desk):
    desk.change(("eve", CONSENTED, 5, 100))
    assert desk.sign_in((START, "eve", ONE, 50, 50)) == []
    assert desk.sign_in((INTERIM, "eve", ONE, 60, 100)) == [(1, 2)]


def test_late_messages_end_what_was_then(desk):
    desk.sign_in((START, "ann", ONE, 10, 10), (START, "ben", ONE, 20, 20))
    assert desk.sign_in((START, "eve", ONE, 15, 30)) == [END]
    assert desk.sign_in((STOP, "ann", ONE, 25, 31)) == []
    assert [desk.holder(ONE, t) for t in (14, 15, 20)] == [0, -1, 1]


def test_a_stop_that_overtakes_its_start_still_ends_it(desk):
    assert desk.sign_in((STOP, "ann", ONE, 20, 20)) == [END]
    assert desk.sign_in((START, "ann", ONE, 10, 25)) == [(1, 0)]
    assert [desk.holder(ONE, t) for t in (9, 10, 19, 20, 99)] == [-1, 0, 0, -1, -1]


def test_a_stop_of_somebody_else_ends_nothing(desk):
    desk.sign_in((START, "ann", ONE, 10, 10))
    assert desk.sign_in((STOP, "ben", ONE, 20, 20), (STOP, "eve", ONE, 20, 20)) == []
    assert desk.holder(ONE, 30) == 0


def test_bad_rows_are_counted_and_the_others_kept(desk):
    rows = [
        (START, "", ONE, 10, 10),
        (9, "ann", ONE, 10, 10),
        (START, "ann", (*ONE[:2], 0), 10, 10),
        (START, "ann", (*ONE[:2], 129), 10, 10),
        (START, "ann", ONE, 10, 10),
    ]
    assert desk.sign_in(*rows) == [BIND_ANN]
    assert desk.tally.starting("fault") == {
        "login_missing": 1,
        "state_unknown": 1,
        "address_bad": 2,
    }


def test_bad_changes_of_the_circle_are_counted(desk):
    batch = desk.change(("", LISTED, 1, 1), ("cat", 0, 1, 1), ("cat", 9, 1, 1), ("cat", LEFT, 1, 1))
    assert batch.state.tolist() == [Basis.LEFT]
    assert desk.tally.starting("fault") == {"login_missing": 1, "state_unknown": 2}


def test_subscribers_are_numbered_as_they_appear(desk):
    batch = desk.change(("cat", LISTED, 2, 2), ("ann", LEFT, 2, 2), ("dan", CONSENTED, 2, 2))
    assert batch.subscriber.tolist() == [2, 0, 3]
    assert desk.directory.subscriber_of("dan") == 3
    assert desk.directory.subscriber_of("eve") == -1
    assert len(desk.directory.subscriber_ids) == 4
    wanted = digest(KEYS.identity, "subscriber", b"seed", "dan")
    assert desk.directory.subscriber_ids[3].tobytes() == wanted


def test_ids_depend_on_seed_and_keys():
    def first(keys, seed):
        return Desk(keys, seed).change(("ann", CONSENTED, 1, 1)).subscriber_id.tobytes()

    assert first(KEYS, b"a") == first(KEYS, b"a")
    assert first(KEYS, b"a") != first(KEYS, b"b")
    assert first(KEYS, b"a") != first(Keys.from_seed("other"), b"a")


def test_a_token_names_a_member_to_one_partner(desk):
    token = desk.directory.member_token("books", 1)
    assert desk.directory.by_token("books", token) == 1
    assert desk.directory.by_token("books", f" {token.upper()} ") == 1
    assert desk.directory.by_token("other", token) == -1
    assert desk.directory.by_token("books", "") == -1
    desk.change(("cat", LISTED, 2, 2))
    assert desk.directory.by_token("books", desk.directory.member_token("books", 2)) == 2
    assert desk.directory.member_token("books", 1) == token


def test_the_journal_brings_the_directory_back(desk):
    desk.sign_in((START, "ann", ONE, 10, 10), (START, "ben", TWO, 10, 10))
    desk.sign_in((START, "eve", ONE, 20, 20))
    stored = concat(desk.bindings)
    stored = stored.with_columns(subscriber=np.full(len(stored), 77, np.int32))
    again = Directory(KEYS, b"seed")
    bindings, basis = again.restore(stored, concat(desk.basis))
    assert same(bindings, concat(desk.bindings))
    assert same(basis, concat(desk.basis))
    assert again.subscriber_ids.tobytes() == desk.directory.subscriber_ids.tobytes()
    assert again.subscriber_of("ben") == 1


def test_a_login_keeps_the_id_that_an_earlier_seed_gave_it(desk):
    again = Directory(KEYS, b"another seed")
    again.restore(BindingBatch.empty(), concat(desk.basis))
    batch = again.push_circle(circle_batch([("ben", LEFT, 5, 5), ("cat", LISTED, 5, 5)]), Tally())
    assert batch.subscriber.tolist() == [1, 2]
    assert batch.subscriber_id[:1].tobytes() == desk.directory.subscriber_ids[1:].tobytes()
    assert again.member_token("books", 1) == desk.directory.member_token("books", 1)


def test_a_login_whose_key_was_destroyed_is_a_stranger(desk):
    blank = TextColumn.of(["", ""])
    again = Directory(KEYS, b"seed")
    again.restore(BindingBatch.empty(), concat(desk.basis).with_columns(login=blank))
    assert again.subscriber_of("ann") == -1
    assert len(again.subscriber_ids) == 2


def everything_reachable(thing) -> list:
    """All objects that can be reached from this one, but for modules and types."""
    found, waiting, seen = [], [thing], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, type) or type(one).__name__ == "module":
            continue
        seen.add(id(one))
        found.append(one)
        waiting.extend(r for r in gc.get_referents(one) if not callable(r))
    return found


def test_nothing_of_an_outsider_is_kept(desk):
    login, address = "outsider-canary-4711", parse_prefix("198.51.100.77")
    desk.sign_in((START, "ann", ONE, 10, 10), (START, login, address, 11, 11))
    desk.sign_in((START, login, ONE, 12, 12), (STOP, login, address, 13, 13))
    assert desk.directory.subscriber_of(login) == -1
    hidden = [
        login.encode(),
        digest(KEYS.identity, "subscriber", b"seed", login),
        digest(KEYS.identity, "login", login),
        prefix_hash(KEYS.address, *address),
    ]
    kept = everything_reachable([desk.directory, desk.circle, desk.bindings, desk.tally])
    raw = [o if isinstance(o, bytes) else o.encode() for o in kept if isinstance(o, bytes | str)]
    raw += [o.tobytes() for o in kept if isinstance(o, np.ndarray)]
    assert len(raw) > 20
    assert not [secret for secret in hidden for one in raw if secret in one]
    numbers = {o for o in kept if isinstance(o, int)}
    assert address[1] not in numbers
    assert not np.isin(address[1], desk.circle.arrays.prefixes["lo"])


def test_the_directory_keeps_no_login_of_a_member_either(desk):
    desk.sign_in((START, "ann", ONE, 10, 10))
    kept = everything_reachable(desk.directory)
    texts = {o for o in kept if isinstance(o, str | bytes)}
    assert not texts & {"ann", b"ann", "ben", b"ben"}


LOGINS = ["ann", "ben", "cat", "eve"]
PREFIXES = [
    ONE, TWO, parse_prefix("192.0.2.0/24"), parse_prefix("2001:db8:0:100::/56"),
    parse_prefix("2001:db8:0:105::/64"), parse_prefix("2001:db8:0:105::7/128"),
]  # fmt: skip
STEPS = st.lists(
    st.tuples(
        st.sampled_from([1, 1, 1, 2, 3, 0]),
        st.sampled_from(LOGINS),
        st.sampled_from(PREFIXES),
        st.integers(-4, 0),
        st.integers(1, 4),
        st.booleans(),
    ),
    max_size=20,
)


def tell(steps, cuts: set[int]):
    """What the directory makes of the steps, in order; kind 0 is a change of the circle."""
    desk = Desk()
    desk.change(("ann", CONSENTED, 1, 1), ("ben", LISTED, 1, 1))
    now, waiting = 10, []
    for number, (kind, login, prefix, event, state, tick) in enumerate(steps):
        now += 3 * tick
        if number in cuts or kind == 0:
            desk.sign_in(*waiting)
            waiting = []
        if kind == 0:
            desk.change((login, state, now + event, now))
        else:
            waiting.append((kind, login, prefix, now + event, now))
    desk.sign_in(*waiting)
    return desk


@given(STEPS, st.sets(st.integers(0, 20)))
def test_equals_the_naive_directory_however_cut(steps, cuts):
    desk = tell(steps, cuts)
    naive, wanted, now = NaiveDirectory(), [], 10
    naive.circle("ann", CONSENTED, 1, 1)
    naive.circle("ben", LISTED, 1, 1)
    for kind, login, prefix, event, state, tick in steps:
        now += 3 * tick
        if kind == 0:
            naive.circle(login, state, now + event, now)
        else:
            wanted += naive.sign_in(kind, login, prefix, now + event, now)
    rows = concat(desk.bindings)
    columns = (rows.address_hi, rows.address_lo, rows.prefix_length)
    prefixes = list(zip(*(c.tolist() for c in columns), strict=True))
    found = zip(
        rows.kind.tolist(),
        rows.subscriber.tolist(),
        prefixes,
        rows.event_ns.tolist(),
        rows.received_ns.tolist(),
        strict=True,
    )
    assert list(found) == wanted
    assert len(set(rows.binding_id.tolist())) >= len({tuple(w) for w in wanted})


@given(STEPS)
def test_the_last_who_signed_in_holds_the_address(steps):
    """Messages in time order on host addresses: the circle knows what a diary of them knows."""
    desk = Desk()
    members = {"ann": 0, "ben": 1, "cat": 2}
    desk.change(*((login, CONSENTED, 1, 1) for login in members))
    diary: dict[tuple, str] = {}
    for now, (kind, login, prefix, *_) in enumerate(steps, start=10):
        if kind == 0 or prefix not in (ONE, TWO):
            continue
        desk.sign_in((kind, login, prefix, now, now))
        if kind != STOP:
            diary[prefix] = login
        elif diary.get(prefix) == login:
            del diary[prefix]
        for where in (ONE, TWO):
            assert desk.holder(where, now) == members.get(diary.get(where, ""), -1)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(1, 128))
def test_cut_prefix_is_what_the_mask_says(hi, lo, length):
    found = cut_prefix(hi, lo, length)
    value, whole = found[0] << 64 | found[1], hi << 64 | lo
    assert value >> (128 - length) == whole >> (128 - length)
    assert value & ((1 << (128 - length)) - 1) == 0


def test_an_end_names_nobody():
    desk = Desk()
    desk.change(("ann", CONSENTED, 1, 1))
    desk.sign_in((START, "ann", ONE, 2, 2), (START, "eve", ONE, 3, 3))
    ends = desk.bindings[0].take(desk.bindings[0].kind == BindingKind.END)
    assert ends.subscriber_id.tobytes() == no_ids(1).tobytes()
