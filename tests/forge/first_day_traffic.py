"""The bundled day, first half: who is who, who held which address, and what went over the wire.

1 March 2026, all times UTC. ISP members and what happens to them:

    ann     consented   buys, comes back through another affiliate, spends points, has debt
    bob     listed      would be offered the programme; his purchase earns nothing
    carol   listed      refuses at 11:00, in the middle of a hello
    dave    consented   his address passes to erin at 12:00:05
    erin    consented
    frank   consented   his address passes to an outsider at 15:00:00, known at 15:00:03
    heidi   consented   unbound until 09:30
    ivan    consented   IPv6
    judy    left        the day before
    oscar, gina         outside the circle
"""

from __future__ import annotations

from pathlib import Path

from pipeline.model.times import parse_time
from tests.forge import heads
from tests.forge.texts import write_rows
from tests.forge.wire import Wire

SEED = "first-day"
SUBSCRIBERS = ("198.51.100.0/24", "2001:db8:100::/40")
LINE = {
    "ann": "198.51.100.10",
    "bob": "198.51.100.20",
    "carol": "198.51.100.30",
    "dave": "198.51.100.40",
    "dave later": "198.51.100.41",
    "erin": "198.51.100.40",
    "frank": "198.51.100.60",
    "gina": "198.51.100.60",
    "oscar": "198.51.100.70",
    "heidi": "198.51.100.80",
    "judy": "198.51.100.90",
    "ivan": "2001:db8:100:7::5",
}
ACME, BOLT, BOOKS, DELTA = "203.0.113.1", "203.0.113.17", "203.0.113.33", "203.0.113.49"
ACME6, BOOKS6 = "2001:db8:1::1", "2001:db8:33::1"
NEWS, TRACKER, TRAP, NAMES = "192.0.2.10", "192.0.2.20", "192.0.2.66", "192.0.2.53"
OFFICE_VLAN, HOME_VLAN = 100, 300


def login(name: str) -> str:
    """The operator's name for a line."""
    return f"{name}@isp.example"


def at(text: str) -> int:
    """`08:05`, `08:05:00.250` of the day, or a whole time, as UTC nanoseconds."""
    if "T" not in text:
        text = f"2026-03-01T{text if text.count(':') == 2 else text + ':00'}Z"
    value = parse_time(text)
    assert value is not None, text
    return value


def iso(text: str) -> str:
    """The same as text for a file."""
    if "T" in text:
        return text
    return f"2026-03-01T{text if text.count(':') == 2 else text + ':00'}Z"


def write_circle(path: Path) -> None:
    """Who may be looked at. The lists came in on 20 February."""
    states = {
        "ann": "consented", "bob": "listed", "carol": "listed", "dave": "consented",
        "erin": "consented", "frank": "consented", "heidi": "consented", "ivan": "consented",
        "judy": "consented",
    }  # fmt: skip
    changes = [("2026-02-20T09:00:00Z", name, state) for name, state in states.items()]
    changes += [("2026-02-28T17:00:00Z", "judy", "left"), ("11:00", "carol", "refused")]
    write_rows(
        path,
        "circle",
        (
            {
                "event_ns": iso(when),
                "received_ns": iso(when),
                "login": login(name),
                "state": state,
                "terms": "member-terms-1" if state == "consented" else "",
            }
            for when, name, state in changes
        ),
    )


def write_signins(path: Path) -> None:
    """Who held which address. One row is broken on purpose: it is counted, and nothing else."""
    happened = [("07:00", "07:00:01", "start", name) for name in LINE if name in (
        "ann", "bob", "carol", "dave", "frank", "oscar", "judy", "ivan",
    )]  # fmt: skip
    happened += [
        ("08:00", "08:00:01", "interim", "ann"),
        ("09:30", "09:30:02", "start", "heidi"),
        ("12:00:05", "12:00:06", "start", "erin"),
        ("12:10", "12:10:01", "start", "dave later"),
        ("15:00", "15:00:03", "start", "gina"),
        ("18:45", "18:45:01", "stop", "bob"),
    ]
    rows: list[dict[str, str] | str] = [
        {
            "event_ns": iso(when),
            "received_ns": iso(told),
            "kind": kind,
            "login": login(name.split()[0]),
            "address": LINE[name],
        }
        for when, told, kind, name in happened
    ]
    broken = "\t".join((iso("12:30"), iso("12:30:01"), "start", login("mallory"), "198.51.100.999"))
    rows.insert(len(rows) - 2, broken)
    write_rows(path, "sign-ins", rows)


def write_capture(path: Path) -> None:
    """The mirror port's view of the day."""
    wire = Wire(SEED)
    for part in (_morning, _noon, _afternoon, _evening, _not_to_be_read, _look_alikes):
        part(wire)
    wire.write(path)


def _morning(wire: Wire) -> None:
    """Ann's first visit, two offers, heidi before and after she is known."""
    ann, bob, heidi = LINE["ann"], LINE["bob"], LINE["heidi"]
    wire.http(
        at("08:05"),
        ann,
        ACME,
        heads.document("www.acme.example"),
        heads.document("www.acme.example", "/product/7?colour=red", "http://www.acme.example/"),
        tags=(OFFICE_VLAN,),
    )
    picture = heads.picture("img.static.acme.example", "/7.avif")
    wire.http(at("08:05:01"), ann, ACME, picture, tags=(OFFICE_VLAN,))
    pay = heads.client_hello("pay.acme.example", wire.rng)
    wire.tls(at("08:06"), ann, ACME, pay, tags=(OFFICE_VLAN,))
    wire.tls(at("08:12"), ann, NEWS, heads.client_hello("news.example", wire.rng))
    wire.http(at("08:30"), heidi, ACME, heads.document("acme.example"))
    wire.http(at("09:00"), bob, ACME, heads.document("acme.example"))
    wire.tls(at("09:05"), bob, BOLT, heads.client_hello("www.bolt.example", wire.rng))
    wire.http(at("09:20"), LINE["carol"], ACME, heads.document("acme.example", "/sale"))
    sign_up = heads.document("bolt.example", "/tariffs")
    wire.http(at("09:40"), heidi, BOLT, sign_up, tags=(HOME_VLAN, 12))


def _noon(wire: Wire) -> None:
    """Another affiliate brings ann back; carol refuses; dave's address passes to erin."""
    ann, dave, carol = LINE["ann"], LINE["dave"], LINE["carol"]
    wire.http(at("10:00"), ann, TRACKER, heads.document("go.trk.example", "/c?m=17"))
    landing = heads.document("acme.example", "/?awc=17_1772359200_a1")
    wire.http(at("10:00:20"), ann, ACME, landing)
    wire.http(
        at("10:30"),
        dave,
        ACME,
        heads.script_call("acme.example", "/api/basket"),
        heads.document("acme.example", "/shoes"),
    )
    late = heads.client_hello("www.delta.example", wire.rng, post_quantum=True)
    half = len(late) // 2
    wire.tls(at("10:59:59.894"), carol, DELTA, late, cuts=(half,), wait_ns=700_000_000)
    wire.http(at("11:10"), carol, BOLT, heads.document("bolt.example"))
    wire.http(at("11:59:50"), dave, BOLT, heads.document("bolt.example", "/prepaid"))
    wire.http(at("12:05"), LINE["erin"], ACME, heads.document("m.acme.example"))


def _afternoon(wire: Wire) -> None:
    """Hellos in pieces over IPv6; frank's shop; his address passes to somebody outside."""
    ivan, frank = LINE["ivan"], LINE["frank"]
    large = heads.client_hello("www.books.example", wire.rng, post_quantum=True)
    wire.tls(at("13:00"), ivan, BOOKS6, large)
    turned = heads.client_hello("acme.example", wire.rng, post_quantum=True)
    wire.tls(at("13:30"), ivan, ACME6, turned, cuts=(600,), swapped=True)
    wire.http(at("14:00"), frank, BOOKS, heads.document("books.example", "/new"))
    wire.http(at("14:05"), frank, DELTA, heads.document("delta.example"))
    wire.http(at("15:00:01.500"), LINE["gina"], BOOKS, heads.document("books.example"))
    wire.http(at("15:10"), LINE["gina"], ACME, heads.document("acme.example"))


def _evening(wire: Wire) -> None:
    """A tracker before a shop that matches, a listed buyer, pages without a document."""
    erin, heidi = LINE["erin"], LINE["heidi"]
    clicked = heads.client_hello("click.track.example", wire.rng)
    wire.tls(at("16:29"), erin, TRACKER, clicked)
    wire.tls(at("16:30"), erin, BOOKS, heads.client_hello("www.books.example", wire.rng))
    wire.tls(at("17:00"), LINE["bob"], BOOKS, heads.client_hello("books.example", wire.rng))
    wire.http(
        at("17:30"),
        heidi,
        ACME,
        heads.form("acme.example", "/login", b"user=heidi&secret=canary-body-51c2"),
        heads.script_call("acme.example", "/api/basket"),
    )
    booking = heads.client_hello("book.delta.example", wire.rng)
    wire.tls(at("18:00"), LINE["dave later"], DELTA, booking)
    wire.http(at("18:50"), LINE["bob"], ACME, heads.document("acme.example"))
    wire.http(at("19:00"), LINE["ann"], ACME, heads.document("acme.example", "/gifts"))


def _not_to_be_read(wire: Wire) -> None:
    """Outsiders, somebody who left, and what has no host name to read."""
    oscar = LINE["oscar"]
    wire.http(at("15:30"), oscar, ACME, heads.document("acme.example", "/canary-outsider"))
    wire.tls(at("15:31"), oscar, BOOKS, heads.client_hello("www.books.example", wire.rng))
    wire.http(at("09:50"), LINE["judy"], ACME, heads.document("acme.example"))
    question = bytes.fromhex("1a2b01000001000000000000") + b"\4acme\7example\0\0\1\0\1"
    wire.datagram(at("08:04:59"), LINE["ann"], NAMES, 53, question, question)
    wire.datagram(at("08:12:01"), LINE["ann"], NEWS, 443, b"\xc3\0\0\0\1\x08" + bytes(60))
    wire.noise(at("07:30"), LINE["bob"], NAMES)


def _look_alikes(wire: Wire) -> None:
    """Names that only look like a partner's; an address in place of a name."""
    ann = LINE["ann"]
    wire.http(at("16:00"), ann, TRAP, heads.document("acme.example.evil.example"))
    wire.tls(at("16:01"), ann, TRAP, heads.client_hello("notacme.example", wire.rng))
    wire.http(at("16:02"), ann, TRAP, heads.document("bolt.example.test", "/?host=bolt.example"))
    wire.http(at("16:03"), ann, TRAP, heads.document("192.0.2.66", "/acme.example/"))
    wire.http(at("16:04"), LINE["ivan"], "2001:db8:66::6", heads.document("[2001:db8:66::6]:8080"))
