"""Canaries in every input, and a search for them in everything that an owner leaves or says.

The same inputs go through `replay` of a case, and through `run` as files dropped into a folder.

A canary is a login, number, address, foreign host, path, referrer or cookie that occurs nowhere
else. Of a member, login and address may stand in sealed columns only, which the test unseals to see
that it would have found them. Of the outsider nothing may be anywhere, sealed or not.
"""

import ipaddress
import json
import sqlite3
from pathlib import Path

import pytest

from pipeline.model.batches import STREAMS
from pipeline.model.columns import TextColumn, columns_of
from pipeline.store.journal import Journal
from pipeline.store.keys import load_keys
from tests.commands import asked, done, mirrorpoint
from tests.forge.heads import client_hello, document, request
from tests.forge.texts import write_rows
from tests.forge.wire import Wire
from tests.need import REPOSITORY

pytestmark = pytest.mark.slow

T0 = 1_772_352_000_000_000_000
SECOND = 1_000_000_000
SHOP, ELSEWHERE = "203.0.113.10", "203.0.113.99"
MEMBER, OUTSIDER, BUYER = "198.51.100.77", "198.51.100.88", "198.51.100.99"
MEMBER_6 = "2001:db8:77:7777:a1b2:c3d4:e5f6:1789"

MEMBERS = {
    "login": "wren-member-login",
    "raw": "jackdaw-in-a-broken-message",
    "mail": "dunnock@isp.example",
    "named host": "siskin.test",
    "name": "Redstart Linnet",
    "click": "whinchat-for-a-click",
}
# What partners write where a reference should stand: all of it, in each column, on good rows and
# on a parked one.
REFERENCES = (MEMBERS["mail"], MEMBERS["named host"], MEMBERS["name"], MEMBER, MEMBER_6)
NEVER = {
    "outsider login": "heron-outsider-login",
    "outsider number": "491555000888",
    "foreign host": "bullfinch.test",
    "outsider's foreign host": "kestrel.test",
    "member's path": "wagtail-path",
    "query": "goldcrest-query",
    "cookie": "canary-cookie-7f3a",
    "referrer": "nightjar-referrer",
    "body": "skylark-body",
}


def moment(seconds):
    return str(T0 + int(seconds * SECOND))


def build(folder):
    folder.mkdir()
    wire = Wire("canary")
    for number, (client, start) in enumerate(((MEMBER, 100), (OUTSIDER, 130), (MEMBER_6, 160))):
        at = T0 + start * SECOND
        shop = "acme.example" if client != MEMBER_6 else "bolt.example"
        path = "/" + NEVER["member's path"] + "?q=" + NEVER["query"]
        server = "2001:db8:ffff::1" if client == MEMBER_6 else SHOP
        referer = f"http://{NEVER['referrer']}.test/"
        wire.http(at, client, server, document(shop, path, referer))
        posted = request("POST", shop, "/login", "*/*", "", "Content-Length: 12")
        wire.http(at + SECOND, client, server, posted + NEVER["body"].encode())
        wire.http(at + 2 * SECOND, client, server, document(NEVER["foreign host"]))
        host = NEVER["foreign host"] if number != 1 else NEVER["outsider's foreign host"]
        wire.tls(at + 3 * SECOND, client, server, client_hello(host, wire.rng))
    wire.write(folder / "input.pcap")
    start = {"event_ns": moment(0), "received_ns": moment(0)}
    write_rows(
        folder / "circle.tsv",
        "circle",
        [
            start | {"login": MEMBERS["login"], "state": "consented", "terms": "t1"},
            {"event_ns": moment(600), "received_ns": moment(600), "login": MEMBERS["login"]}
            | {"state": "left", "terms": "t1"},
        ],
    )
    write_rows(
        folder / "signins.tsv",
        "sign-ins",
        [
            start | {"kind": "start", "login": MEMBERS["login"], "address": MEMBER},
            start
            | {"kind": "start", "login": MEMBERS["login"], "address": "2001:db8:77:7777::/64"},
            start | {"kind": "start", "login": NEVER["outsider login"], "address": OUTSIDER},
            start | {"kind": "start", "login": NEVER["outsider number"], "address": OUTSIDER},
            start | {"kind": "begin", "login": NEVER["outsider login"], "address": "nonsense"},
        ],
    )
    purchase = {"event_ns": moment(300), "received_ns": moment(400), "status": "approved"}
    write_rows(
        folder / "purchases.tsv",
        "purchases",
        [
            purchase
            | {"partner": "corner-books", "conversion_id": "b1", "order_ref": "r1"}
            | {"address": BUYER, "port": "4711", "at_ns": moment(300), "amount": "10.00"},
            purchase | {"partner": "acme-shop", "conversion_id": "a1", "amount": MEMBERS["raw"]},
            purchase
            | {"partner": "acme-shop", "conversion_id": "a2", "amount": "5.00"}
            | {"reason": f"for {MEMBERS['raw']}"}
            | {"items": f'[{{"sku": "s1", "name": "{MEMBERS["raw"]}"}}]'},
            f"{moment(300)}\tthis line is broken: {MEMBERS['raw']}",
            *referring(purchase | {"partner": "acme-shop", "amount": "4.00"}),
        ],
    )
    order = {"event_ns": moment(500), "received_ns": moment(500), "points": "1"}
    logins = (MEMBERS["login"], NEVER["outsider login"])
    rows = [order | {"login": login, "ref": f"o{n}"} for n, login in enumerate(logins)]
    write_rows(folder / "orders.tsv", "orders", rows)
    (folder / "case.toml").write_text(
        'title = "Canaries"\nseed = "canary"\n[settings]\nparse_for = "listed"\n'
        'subscribers = ["198.51.100.0/24", "2001:db8:77::/48"]\n[inputs]\n'
        'captures = ["input.pcap"]\nsignins = ["signins.tsv"]\ncircle = ["circle.tsv"]\n'
        'purchases = ["purchases.tsv"]\norders = ["orders.tsv"]\n'
        '[[cut]]\nname = "end"\nafter = "end"\nnow = 2026-04-30T00:00:00Z\n'
    )
    return folder


def referring(purchase):
    """Purchases whose references hold what they must not."""
    rows = []
    for n, text in enumerate(REFERENCES):
        named = dict.fromkeys(("line_id", "order_ref", "coupon"), text)
        named["items"] = json.dumps([{"sku": text, "category": text}])
        for place in ("conversion_id", "correction_of"):
            row = purchase | {"conversion_id": f"d{n}"} | named | {place: text, "click_ref": text}
            rows += [row, row | {"amount": "1.001"}]
    return [*rows, purchase | {"conversion_id": "e", "click_ref": MEMBERS["click"]}]


def forms(word, short=True):
    """Every way in which a canary could be written down.

    Without `short` the four bytes of an IPv4 address are left out: among the megabytes of random
    bytes that encryption makes, any four stand somewhere, some day.
    """
    try:
        address = ipaddress.ip_address(word)
    except ValueError:
        return [word.encode(), word.encode().hex().encode(), word.encode("utf-16-le")]
    packed = address.packed
    long = (b"\0" * 10 + b"\xff\xff" + packed) if len(packed) == 4 else packed
    words = [packed, packed[::-1], long[:8], long[:8][::-1], long[8:], long[8:][::-1]]
    words = [word for word in words if len(word.strip(b"\0")) >= 4]
    words = [word for word in words if short or len(word) > 4]
    numbers = [str(int.from_bytes(word)).encode() for word in words]
    return [str(address).encode(), packed.hex().encode(), *words, *numbers]


def replay(case, state):
    """The case, and what whatif says of it."""
    result = mirrorpoint("replay", case, "--state", state, "--json")
    rules = REPOSITORY / "rules"
    return result, mirrorpoint("whatif", case, "--rules", rules, "--json")


def watch(case, state):
    """The same files dropped into a folder; the job that a case's cut runs."""
    (case / "case.toml").unlink()
    words = ("--parse-for", "listed", "--subscribers", "198.51.100.0/24")
    words += ("--subscribers", "2001:db8:77::/48", "--once")
    result = mirrorpoint("run", "--watch", case, "--state", state, *words)
    now = ("--now", "2026-04-30T00:00:00Z")
    return result, mirrorpoint("job", "accrue", "--state", state, *now, "--json")


@pytest.fixture(scope="module", params=[replay, watch], ids=["replay", "run"])
def run(request, tmp_path_factory):
    """A state, everything that was said on the way, and the counts of what is in it."""
    folder = tmp_path_factory.mktemp("canary")
    state = folder / "state"
    results = request.param(build(folder / "case"), state)
    for result in results:
        assert result.returncode == 0, result.stderr
    return state, results


def searched(state, results):
    """(where, bytes, may hold random bytes) of everything an owner leaves or says, unsealed."""
    for number, result in enumerate(results):
        yield f"standard output {number}", result.stdout.encode(), False
        yield f"standard error {number}", result.stderr.encode(), False
    for path in sorted(state.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(state)), path.read_bytes(), True
    for where, content in columns(state, sealed=False):
        yield where, content, False
    for where, content in told(state):
        yield where, content, False


def told(state):
    """(where, bytes) of what the commands tell of a state, table by table."""
    tables = asked(state, "SELECT name FROM system.tables WHERE database = currentDatabase()")
    for (name,) in [tuple(row.values()) for row in tables]:
        yield (
            f"table {name}",
            done("sql", "--state", state, "--json", f"SELECT * FROM {name}").encode(),
        )
    connection = sqlite3.connect(f"file:{state / 'book.sqlite'}?mode=ro", uri=True)
    yield "book", "\n".join(connection.iterdump()).encode()
    connection.close()
    for row in asked(state, "SELECT visit_id FROM visits"):
        shown = done("explain", row["visit_id"], "--state", state, "--json")
        yield f"explain {row['visit_id']}", shown.encode()
    yield "audit", done("job", "audit", "--state", state).encode()
    missing = mirrorpoint("explain", "--missing", "--order", "r1", "--state", state)
    yield "missing", (missing.stdout + missing.stderr).encode()
    wrong = mirrorpoint("sql", "--state", state, "SELECT no_such FROM visits")
    assert wrong.returncode == 2
    yield "an error", (wrong.stdout + wrong.stderr).encode()


def test_the_day_happened(run):
    state, results = run
    decisions = asked(state, "SELECT toString(reason) AS reason FROM decisions")
    assert decisions == [{"reason": "member_document"}] * 2
    parked = asked(state, "SELECT parked FROM purchases_log WHERE parked != 'none' ORDER BY 1")
    assert {row["parked"] for row in parked} == {"bad_amount", "malformed"}
    if results[0].args[3] == "replay":
        report = json.loads(results[0].stdout)
        assert report["visits"] == 2
        assert report["skipped"]["unbound"] > 0
        assert report["skipped"]["name_of_nobody"] == 4


def test_no_canary_outside_sealed_columns(run):
    state, results = run
    words = {**MEMBERS, **NEVER, "member": MEMBER, "member 6": MEMBER_6, "outsider": OUTSIDER}
    words |= {"member's prefix": "2001:db8:77:7777::", "buyer": BUYER}
    places = 0
    for where, content, random in searched(state, results):
        places += 1
        for what, word in words.items():
            for form in forms(word, short=not random):
                assert form not in content, f"{what} stands in {where}"
    assert places > 40


def unsealed(state):
    """All sealed values of the journal, as bytes per stream and column."""
    return columns(state, sealed=True)


def columns(state, sealed):
    """Values of the journal's columns of one sort, as bytes per stream and column."""
    keys = load_keys(state, allow_test=True)
    with Journal(state / "journal", keys, writable=False) as journal:
        for stream, batch_class in STREAMS.items():
            for column in columns_of(batch_class):
                if column.sealed is not sealed:
                    continue
                for batch in journal.read(stream, unseal=sealed):
                    values = getattr(batch, column.name)
                    raw = values.data if isinstance(values, TextColumn) else values
                    yield f"{stream}.{column.name}", raw.tobytes()


@pytest.mark.parametrize("text", REFERENCES)
def test_an_order_is_found_by_what_was_not_stored(run, text):
    state, _ = run
    shown = done("explain", "--missing", "--order", text, "--state", state, "--json")
    whats = [link["what"] for link in json.loads(shown)]
    assert whats.count("message") == 4
    assert text not in shown


def test_the_member_is_found_in_sealed_columns(run):
    state, _ = run
    everything = b"".join(content for _, content in unsealed(state))
    for word in MEMBERS.values():
        assert word.encode() in everything
    assert any(form in everything for form in forms(MEMBER))
    assert any(form in everything for form in forms(BUYER))


def test_nothing_of_the_outsider_is_sealed_either(run):
    state, _ = run
    for where, content in unsealed(state):
        for what, word in {**NEVER, "outsider": OUTSIDER}.items():
            for form in forms(word):
                assert form not in content, f"{what} stands sealed in {where}"


def test_key_files_are_private(run):
    state, _ = run
    for path in [state, *Path(state).rglob("*")]:
        if path.name not in ("clickhouse",) and "clickhouse" not in path.parts:
            assert path.stat().st_mode & 0o077 == 0, path
