"""`mirrorpoint book KIND`, from what was said to what the book answered."""

from __future__ import annotations

import json

import pytest

from pipeline.model.access import Role, covers
from pipeline.model.identifiers import NO_ID_TEXT, id_text
from pipeline.model.times import show_time
from pipeline.model.words import Result
from pipeline.run.actors import Peer, actor_of
from pipeline.run.admission import admitted
from pipeline.run.failures import RequestError
from pipeline.run.forms import FORMS
from pipeline.run.permissions import Denied, Grant, Permissions
from pipeline.run.requests import answer
from pipeline.run.state import State
from pipeline.score.orders import command_id
from tests.run.accruing import RULES
from tests.score.making import DAY_NS, KEYS, NOON, an_id
from tests.store.store_rows import batch_of_rows

ANN, BOB, EVE = (id_text(an_id(name)) for name in ("ann", "bob", "eve"))
AT = show_time(NOON)
OWN = "partner:acme-shop"


class Desk:
    """A state whose store is in memory, at which people ask the book."""

    def __init__(self, folder) -> None:
        name = f"desk_{folder.name}".replace("-", "_").lower()[:60]
        self.state = State(folder, KEYS, RULES, clickhouse_url="chdb://:memory:", database=name)
        self.state.use_rulebook(RULES, NOON)
        circle = [{"subscriber_id": who} for who in ("ann", "bob")]
        self.state.journal.append("basis", batch_of_rows("basis", circle))

    def cut(self, days: float = 1) -> dict[str, int]:
        number = len(self.state.cuts()) + 1
        cut = self.state.make_cut(number, f"cut-{number}", NOON + int(days * DAY_NS), None)
        return self.state.accrue(cut, "tests").orders

    def ask(self, name: str, ref: str = "r", said: dict | None = None, **more) -> dict:
        request = {"do": "book", "name": name, "ref": ref, "said": said or {}, "at": AT}
        who = {"actor": "dan", "role": "admin", "scope": "", "json": True}
        return json.loads(answer(self.state, {**request, **who, **more}))

    def rows(self, kind: str = "") -> list[dict]:
        chosen = f"WHERE kind = '{kind}'" if kind else ""
        return self.state.clickhouse.dicts(
            f"SELECT * FROM commands_log {chosen} ORDER BY stream_offset"
        )

    def result(self, told: dict) -> Result | None:
        return self.state.book.request(an_id_of(told))


def an_id_of(told: dict) -> bytes:
    return bytes.fromhex(told["command"].replace("-", ""))


@pytest.fixture
def desk(tmp_path):
    found = Desk(tmp_path)
    yield found
    assert found.state.book.audit() == []
    found.state.close()


@pytest.fixture
def rich(desk):
    """Ann has 100,000 points of a former programme; three orders of hers are held."""
    desk.ask("migrate", said={"member": ANN, "points": 100_000})
    desk.ask("stock", said={"item": "cup", "quantity": 10_000})
    for ref in ("held", "shop", "north"):
        said = {"member": ANN, "points": 100, "hold-seconds": 86_400 * 300}
        said |= {"payee": "acme-shop"} if ref == "shop" else {"region": "north"}
        desk.ask("reserve", ref, said)
    assert desk.cut(0.001) == {"ok": 5}
    return desk


VALUES = {
    "points": 5, "whole": 1, "order": "shop", "time": "2026-02-01T00:00:00Z", "name": "cup",
    "period": "2025-12", "reason": "as they asked", "id": ANN,
}  # fmt: skip


def filled(kind: str, whole: bool) -> dict:
    """Every field that a kind needs, or all of them."""
    said = {}
    for field in FORMS[kind].fields:
        if field.needed or whole:
            said[field.option] = field.words[0] if field.words else VALUES[field.says]
    if kind == "transfer":
        said["to"] = BOB
    if "payee" in said or (kind in ("order", "reserve") and not whole):
        said["payee"] = "acme-shop"
    if "expires" in said:
        said["expires"] = "2029-01-01T00:00:00Z"
    return said


@pytest.mark.slow
@pytest.mark.parametrize("role", Role)
def test_every_kind_gets_from_the_book_what_its_role_covers(rich, role):
    """At the door as in the book: both say the same, each by itself."""
    scope = OWN if role is Role.PARTNER else ""
    granted = Permissions(1, "x", {actor_of(2**31 - 7): Grant((str(role),), scope)})
    waits = rich.ask("adjust", "waits", {"member": ANN, "points": 7, "reason": "x"})
    rich.cut(0.002)
    told = {}
    for kind in FORMS:
        for whole in (False, True):
            said = filled(kind, whole)
            if "request" in said:
                said["request"] = waits["command"]
            request = {"do": "book", "name": kind, "said": said}
            try:
                let_in = admitted(granted, request, Peer(2**31 - 7, frozenset()))
                assert (let_in["role"], let_in["scope"]) == (role, scope)
            except Denied:
                assert not covers(role, kind)
            else:
                assert covers(role, kind)
            ref = f"{kind} {whole}"
            who = {"actor": "eve", "role": str(role), "scope": scope}
            try:
                told[kind, whole] = rich.ask(kind, ref, said, **who)
            except Denied:
                assert not covers(role, kind)
                rich.state.command(kind, ref, {}, "eve", NOON, an_id("ann"), points=5,
                                   role=str(role), scope=scope)  # fmt: skip
                told[kind, whole] = {"command": id_text(command_id(KEYS, kind, ref))}
    rich.cut(0.003)
    for (kind, _), one in told.items():
        denied = rich.result(one) is Result.NOT_ALLOWED
        assert denied != covers(role, kind), (kind, rich.result(one))
    rows = {row["command_id"]: row for row in rich.rows()}
    for one in told.values():
        row = rows[one["command"]]
        assert (row["actor"], row["role"], row["scope"]) == ("eve", role, scope)
    assert len(told) == 2 * len(FORMS)
    if role is Role.ADMIN:
        good = {kind for (kind, _), one in told.items() if rich.result(one) is Result.OK}
        convert = {"convert_in", "convert_out"}  # there is no such programme
        later = {"release", "reject"}  # of what was committed and approved before
        assert good == set(FORMS) - convert - later - {"adjust"}  # which waits


def test_all_that_is_missing_is_said_at_once(desk):
    for kind, form in FORMS.items():
        needed = [f"--{field.option}" for field in form.fields if field.needed]
        with pytest.raises(RequestError) as raised:
            desk.ask(kind, " ", {"strange": 1}, at="soon")
        lines = str(raised.value).splitlines()
        assert raised.value.code == 2
        assert [line.split()[0] for line in lines] == ["--strange:", *needed, "--ref", "--at"]
    assert desk.rows() == []


WRONG = [
    ("points", 0), ("points", -5), ("points", 10**15), ("points", True), ("points", "5"),
    ("points", 1.5), ("member", "ann"), ("member", NO_ID_TEXT), ("member", 7),
    ("item", "ann@isp.example"), ("item", "a\nb"), ("item", "x" * 65), ("payee", "198.51.100.7"),
    ("redemption", "gifts"), ("quantity", -1), ("hold-seconds", 10**9),
]  # fmt: skip


def test_what_is_wrong_in_a_field_is_named(desk):
    for option, value in WRONG:
        said = {"member": ANN, "points": 5, option: value}
        with pytest.raises(RequestError, match=f"^--{option} ") as raised:
            desk.ask("reserve", "r", said)
        assert raised.value.code == 2
    adjust = {"member": ANN, "points": 5}
    for kind, said, match in (
        ("close_period", {"period": "2026-13"}, "--period"),
        ("adjust", adjust | {"reason": "ann@isp.example"}, "say why, not who"),
        ("adjust", adjust | {"reason": "x" * 201}, "at most 200"),
        ("migrate", adjust | {"earned": "2199-01-01T00:00:00Z"}, "--earned"),
        ("migrate", adjust | {"expires": "tomorrow"}, "--expires"),
        ("commit", {"order": "x" * 129}, "--order"),
    ):
        with pytest.raises(RequestError, match=match):
            desk.ask(kind, "r", said)
    assert desk.rows() == []


def test_nothing_happens_ahead_of_the_clock(desk):
    said = {"member": ANN, "points": 5, "reason": "x"}
    with pytest.raises(RequestError, match="ahead of the clock"):
        desk.ask("adjust", "r", said, at="2199-01-01T00:00:00Z")
    desk.ask("adjust", "then", said)
    desk.ask("adjust", "now", said, at="")
    then, now = desk.rows("adjust")
    assert then["event_at"].startswith("2026-03-01 12:00:00")
    assert now["event_at"] == now["received_at"]


def test_it_is_journalled_durably_before_it_is_answered(desk):
    told = desk.ask("adjust", "a gift", {"member": ANN, "points": 5, "reason": "late"})
    assert told["said"] == "as of the next cut"
    (row,) = desk.rows("adjust")
    assert told["command"] == row["command_id"] == id_text(command_id(KEYS, "adjust", "a gift"))
    assert (row["subscriber_id"], row["points"], row["ref"]) == (ANN, 5, "a gift")
    assert json.loads(row["body"]) == {"reason": "late"}
    assert all(segment.sealed for segment in desk.state.journal.segments("commands"))


def test_asking_twice_is_harmless_and_says_how_it_stands(rich):
    said = {"member": ANN, "points": 5}
    first = rich.ask("order", "o", said)
    again = rich.ask("order", "o", said, actor="eve")
    assert again["said"] == "asked before by dan, as of the next cut"
    assert again == first | {"said": again["said"]}, "as whoever asked first"
    rich.cut()
    after = rich.ask("order", "o", said)
    assert (after["answer"], after["said"]) == ("ok", "asked before by dan: accepted (cut 2)")
    assert len(rich.rows("order")) == 1
    for other in ({"member": ANN, "points": 6}, {"member": BOB, "points": 5}):
        with pytest.raises(RequestError, match="in other words"):
            rich.ask("order", "o", other)
    with pytest.raises(RequestError, match="in other words"):
        rich.ask("reserve", "o", said)  # which is the same order


def test_an_order_keeps_its_id_in_two_steps(rich):
    placed = rich.ask("reserve", "two steps", {"member": ANN, "points": 30})
    assert placed["command"] == id_text(command_id(KEYS, "order", "two steps"))
    rich.ask("commit", "c", {"order": "two steps", "points": 10})
    assert rich.cut(0.01) == {"ok": 2}
    assert rich.state.book.order(an_id_of(placed)).committed == 10
    assert json.loads(rich.rows("commit")[0]["body"]) == {"order": placed["command"]}


def test_nobody_that_nobody_knows(desk):
    adjust = {"points": 5, "reason": "x"}
    for kind, said in (
        ("adjust", {"member": EVE, **adjust}),
        ("order", {"member": EVE, "points": 1}),
        ("transfer", {"member": EVE, "to": ANN, "points": 1}),
    ):
        with pytest.raises(RequestError, match="nobody in the circle, and unknown to the book"):
            desk.ask(kind, "r", said)
    with pytest.raises(RequestError, match="has never had points"):
        desk.ask("order", "r", {"member": ANN, "points": 1})
    with pytest.raises(RequestError, match="has never had points"):
        desk.ask("adjust", "r", {"member": ANN, **adjust, "points": -5})
    desk.ask("adjust", "r", {"member": ANN, **adjust})
    assert len(desk.rows()) == 1


def test_no_order_and_no_request_that_was_never_asked(rich):
    with pytest.raises(RequestError, match="no order of that reference"):
        rich.ask("commit", "r", {"order": "never"})
    with pytest.raises(RequestError, match="nothing of that id was ever asked"):
        rich.ask("approve", "r", {"request": EVE})


def test_a_partner_sees_its_own_orders_and_is_told_of_no_others(rich):
    own = {"actor": "shop", "role": "partner", "scope": OWN}
    said = {"member": ANN, "points": 1, "hold-seconds": 86_400}
    rich.ask("reserve", "new own", said | {"payee": "acme-shop"})
    rich.ask("reserve", "new other", said | {"payee": "corner-books"})
    for ref in ("held", "never", "new other"):
        with pytest.raises(RequestError, match="no order of that reference was ever placed"):
            rich.ask("release", f"of {ref}", {"order": ref}, **own)
    rich.ask("commit", "1", {"order": "shop"}, **own)
    rich.ask("commit", "2", {"order": "new own"}, **own)
    assert rich.cut(0.01) == {"ok": 4}


def test_a_region_places_no_orders_of_another(rich):
    north = {"actor": "anna", "role": "call_centre", "scope": "region:north"}
    said = {"member": ANN, "points": 1}
    rich.ask("order", "1", said | {"region": "north"}, **north)
    for region in ({"region": "south"}, {}):
        with pytest.raises(Denied, match=r"\(call_centre of region:north\)"):
            rich.ask("order", "2", said | region, **north)
    rich.state.deliver()
    assert [row["actor"] for row in rich.rows("denied")] == ["anna", "anna"]
    body = json.loads(rich.rows("denied")[0]["body"])
    assert body["object"] == f"order member {ANN}"
    assert rich.cut(0.01) == {"ok": 1}


def test_a_replay_takes_nothing(desk):
    request = {"do": "book", "name": "adjust", "ref": "r", "actor": "dan", "role": "admin"}
    request |= {"said": {"member": ANN, "points": 1, "reason": "x"}}
    with pytest.raises(RequestError, match="put on record"):
        answer(desk.state, request, replaying=True)
    assert desk.rows() == []


def test_two_persons(rich):
    asked = rich.ask("adjust", "gift", {"member": ANN, "points": 500, "reason": "late"})
    rich.cut(0.01)
    agreed = {"request": asked["command"]}
    same = rich.ask("approve", "1", agreed)
    rich.cut(0.02)
    assert rich.result(same) is Result.SAME_PERSON
    other = rich.ask("approve", "2", agreed, actor="eve", role="approver")
    assert rich.state.book.awaiting() != []
    rich.cut(0.03)
    assert rich.result(other) is Result.OK
    assert rich.state.book.awaiting() == []
    assert rich.state.book.member(an_id("ann")).available == 100_500 - 300


def test_people_read_it_in_80_columns(rich):
    request = {"do": "book", "name": "order", "ref": "r" * 60, "at": AT, "actor": "a" * 30}
    request |= {"role": "call_centre", "said": {"member": ANN, "points": 1}}
    lines = answer(rich.state, request).decode().splitlines()
    assert lines[0].startswith("order ")
    assert lines[-1] == "  as of the next cut"
    assert max(map(len, lines)) <= 80
