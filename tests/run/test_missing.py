"""Who held the address, and was anybody allowed to look? As the gate asked it, from the store.

And which messages may be about an order that nobody seems to have told us of.
"""

import json
from types import SimpleNamespace

import pytest

from pipeline.model.addresses import parse_prefix, prefix_hash
from pipeline.model.batches import STREAMS
from pipeline.model.identifiers import id_text
from pipeline.model.texts import kept_reference
from pipeline.model.times import show_time
from pipeline.model.words import Basis, BindingKind, ParkReason
from pipeline.run.missing import find_break
from tests.score.making import KEYS, NOON, an_id, make
from tests.store.store_rows import put
from tests.store.stores import making_stores

MINUTE = 60 * 10**9
ANN, BOB = id_text(an_id("ann")), id_text(an_id("bob"))


@pytest.fixture(scope="module")
def new_store():
    yield from making_stores()


class Asked:
    """What explanations need of a state, filled by dicts; times are minutes around noon."""

    def __init__(self, store):
        self.state = SimpleNamespace(keys=KEYS, clickhouse=store)

    def add(self, stream, *rows):
        put(self.state.clickhouse, stream, make(STREAMS[stream], list(rows), {}), 0)

    def bind(self, *rows):
        """(prefix, who or nobody, event, received)."""
        found = []
        for prefix, who, event, received in rows:
            words = parse_prefix(prefix)
            found.append(
                {
                    "kind": BindingKind.BIND if who else BindingKind.END,
                    "subscriber_id": who,
                    "prefix_length": words[2],
                    "address_hash": prefix_hash(KEYS.address, *words),
                    "event_ns": NOON + event * MINUTE,
                    "received_ns": NOON + received * MINUTE,
                }
            )
        self.add("bindings", *found)

    def stand(self, *rows):
        """(who, state, event, received)."""
        self.add(
            "basis",
            *(
                {
                    "subscriber_id": who,
                    "state": state,
                    "event_ns": NOON + event * MINUTE,
                    "received_ns": NOON + received * MINUTE,
                }
                for who, state, event, received in rows
            ),
        )

    def read_for(self, *settings):
        """Units of input read under these settings, one after the other."""
        bodies = [json.dumps({"parse_for": text} if text else {}) for text in settings]
        self.add(
            "commands",
            *({"kind": "ingest_begin", "ref": str(n), "body": b} for n, b in enumerate(bodies)),
        )

    def who(self, address, minute=0):
        """The words of the chain about this address then."""
        at = show_time(NOON + minute * MINUTE)
        links = find_break(self.state, {"order": "none", "address": address, "at": at})
        return [link.text for link in links]


@pytest.fixture
def asked(new_store):
    return Asked(new_store())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bound", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.0/24", "203.0.113.200"),
        ("10.9.0.0/16", "10.9.200.1/32"),
        ("2001:db8:1:2::/64", "2001:db8:1:2::9"),
        ("2001:db8:1::/62", "2001:db8:1:3::9"),
        ("2001:db8::/32", "2001:db8:ffff::1"),
        ("2001:db8::7/128", "2001:db8::7"),
    ],
)
def test_any_prefix_that_may_be_bound_is_found(asked, bound, address):
    asked.bind((bound, "ann", -60, -60))
    asked.stand(("ann", Basis.CONSENTED, -90, -90))
    assert f"held by {ANN} since" in asked.who(address)[0]
    assert "no binding" in asked.who("198.51.100.1")[0]


def test_an_ipv4_address_is_not_under_a_prefix_of_ipv6(asked):
    asked.bind(("2001:db8::/32", "ann", -60, -60), ("203.0.113.0/24", "bob", -60, -60))
    asked.stand(("ann", Basis.CONSENTED, -90, -90), ("bob", Basis.CONSENTED, -90, -90))
    assert f"held by {BOB} since" in asked.who("203.0.113.9")[0]
    assert f"held by {ANN} since" in asked.who("2001:db8::9")[0]


def test_what_was_given_up_leaves_it_to_the_wider_prefix(asked):
    asked.bind(
        ("203.0.113.0/24", "ann", -60, -60),
        ("203.0.113.7", "bob", -50, -50),
        ("203.0.113.7", "", -10, -10),
    )
    asked.stand(("ann", Basis.CONSENTED, -90, -90), ("bob", Basis.CONSENTED, -90, -90))
    assert f"held by {ANN} since" in asked.who("203.0.113.7")[0]
    assert f"held by {BOB} since" in asked.who("203.0.113.7", minute=-20)[0]


def test_where_no_wider_one_is_held_it_was_given_up(asked):
    asked.bind(("203.0.113.7", "bob", -50, -50), ("203.0.113.7", "", -10, -10))
    assert "was given up" in asked.who("203.0.113.7")[-1]


def test_what_was_not_known_then_does_not_count(asked):
    asked.bind(("203.0.113.7", "ann", -60, -60), ("203.0.113.7", "bob", -5, 5))
    asked.stand(("ann", Basis.CONSENTED, -90, -90), ("ann", Basis.REFUSED, -3, 3))
    assert f"held by {ANN} since" in asked.who("203.0.113.7")[0]
    assert "consented since" in asked.who("203.0.113.7")[1]
    assert f"held by {BOB} since" in asked.who("203.0.113.7", minute=6)[0]


@pytest.mark.parametrize(
    ("settings", "read"),
    [(["listed"], True), (["consented"], False), (["listed", "", "consented", ""], False)],
)
def test_the_parse_set_is_the_one_that_input_was_read_for(asked, settings, read):
    asked.bind(("203.0.113.7", "ann", -60, -60))
    asked.stand(("ann", Basis.LISTED, -90, -90))
    asked.read_for(*settings)
    told = asked.who("203.0.113.7")
    assert (told[1].startswith("listed: not in the parse set (consented)")) is not read
    assert ("no message" in told[-1]) is read


def test_messages_that_could_not_be_read_may_be_about_any_order(asked):
    torn = {"parked": ParkReason.MALFORMED, "conversion_id": "", "input": "sales.tsv"}
    rows = [torn | {"row": row} for row in range(1, 8)]
    known = {"parked": ParkReason.MALFORMED, "conversion_id": "C-9", "order_ref": "R-9", "row": 8}
    asked.add("purchases", *rows, known)
    *messages, unread, broken = find_break(asked.state, {"order": "R-1"})
    assert [link.what for link in messages] == ["message"] * 5
    assert [int(link.facts["row"]) for link in messages] == [3, 4, 5, 6, 7]
    assert unread.text.startswith("7 malformed messages arrived whose order could not be read")
    assert unread.text.endswith(
        "the last 5 are " + ", ".join(f"row {n} of sales.tsv" for n in range(3, 8))
    )
    assert broken.text == "no message that could be read is about order R-1"
    (message, parked) = find_break(asked.state, {"order": "R-9"})
    assert (message.what, parked.text[:17]) == ("message", "parked: malformed")


def test_where_all_could_be_read_nothing_arrived(asked):
    (broken,) = find_break(asked.state, {"order": "R-1"})
    assert broken.text == "no message about order R-1 has arrived from any partner"


def test_an_order_is_found_by_the_text_that_was_hashed(asked):
    kept = kept_reference("wren@isp.example", KEYS.audit)
    asked.add("purchases", {"order_ref": kept, "parked": ParkReason.BAD_AMOUNT})
    (message, parked) = find_break(asked.state, {"order": "wren@isp.example"})
    assert (message.what, parked.text[:18]) == ("message", "parked: bad_amount")
    assert "wren" not in message.text
