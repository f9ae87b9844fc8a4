"""The bundled day, second half: purchases, orders and cuts; and the script that writes it all.

    python -m tests.forge.forge_first_day [FOLDER]

A forge has two passes: the capture, the circle and the sign-ins are written first, then put through
the engine, which says under which ids clicks were handed out; the purchases name those. The folder
is `replay_pcaps/first-day` unless another is given. A test forges again and compares every byte.

Points are worked out by hand in POINTS, cut by cut:

    evening    everything waits
    released   14 days later: acme's and the book shop's are free, bolt's lead is held for 30
    spent      ann spends 450 of her 500
    amended    her 100.00 becomes 60.00: 50 taken back and 150 of debt; dave's sale is declined
    restored   100.00 again: 200 points come back, 150 of them clear the debt; dave's is approved
               again; heidi's lead is free
    settled    20.00 told seven weeks late; 59.90 is declined while it waits
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pipeline.model.identifiers import id_text
from pipeline.model.times import show_time
from pipeline.model.words import ParseFor
from tests.forge.clicks import Pass, run_stages
from tests.forge.first_day_traffic import (
    LINE,
    SEED,
    SUBSCRIBERS,
    at,
    iso,
    login,
    write_capture,
    write_circle,
    write_signins,
)
from tests.forge.texts import COLUMNS, write_rows

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "replay_pcaps" / "first-day"
TITLE = "The first day"
STORY = """
Nine lines of an operator and two outsiders, four partner shops and a tracker. Visits over plain
HTTP lead to links, purchases come as pending, confirmed, amended, declined and once more; an
address changes hands twice, somebody refuses in the middle of a hello, points are spent before
the sale they came from shrinks. tests/forge/first_day_traffic.py tells the day by the hour."""

# Name, the row after which it is made ("" is the end), `now`, and which cut it delivers again.
CUTS = (
    ("evening", "torn", "2026-03-02T00:00:00Z", ""),
    ("released", "AC-1003 correction", "2026-03-16T00:00:00Z", ""),
    ("spent", "order again", "2026-03-18T00:00:00Z", ""),
    ("spent-again", "", "", "spent"),
    ("amended", "AC-1001 amended", "2026-03-21T00:00:00Z", ""),
    ("released-late", "", "", "released"),
    ("restored", "AC-1001 restored", "2026-04-06T00:00:00Z", ""),
    ("settled", "", "2026-05-05T00:00:00Z", ""),
)
Row = tuple[str, dict[str, str] | str]


def forge(folder: Path) -> Pass:
    """Write the whole case into `folder`; gives the pass that named the clicks."""
    folder.mkdir(parents=True, exist_ok=True)
    write_capture(folder / "input.pcap")
    write_circle(folder / "circle.tsv")
    write_signins(folder / "signins.tsv")
    inputs = [folder / name for name in ("input.pcap", "circle.tsv", "signins.tsv")]
    seen = run_stages(inputs, SEED, SUBSCRIBERS, ParseFor.LISTED)
    purchases = list(_purchases(seen))
    orders = list(_orders())
    write_rows(folder / "purchases.tsv", "purchases", (row for _, row in purchases))
    write_rows(folder / "orders.tsv", "orders", (row for _, row in orders))
    places = {name: f"purchases.tsv:{n}" for n, (name, _) in enumerate(purchases, start=1)}
    places |= {name: f"orders.tsv:{n}" for n, (name, _) in enumerate(orders, start=1)}
    (folder / "case.toml").write_text(_case(places))
    return seen


def message(
    when: str, told: str, conversion: str, status: str, partner: str = "acme-shop", **more: str
) -> dict[str, str]:
    """A purchase message, stamped by the sender a second before it arrives, unless told
    otherwise.
    """
    return {
        "event_ns": iso(when),
        "received_ns": iso(told),
        "partner": partner,
        "conversion_id": conversion,
        "order_ref": conversion.replace("-", "-R", 1),
        "status": status,
        "status_ns": show_time(at(told) - 10**9),
        "kind": "lead" if partner == "bolt-mobile" else "sale",
        "currency": "EUR" if "amount" in more else "",
        "message_id": f"{conversion}/{status}/{told}",
    } | more


def _purchases(seen: Pass) -> Iterator[Row]:
    """Every message in the order of its arrival, by name."""
    ann = [id_text(click) for _, click in seen.clicks(login("ann"), "acme-shop")]
    (_, dave), *_ = seen.clicks(login("dave"), "acme-shop")
    (_, erin), *_ = seen.clicks(login("erin"), "acme-shop")
    (_, heidi), *_ = seen.clicks(login("heidi"), "bolt-mobile")
    (_, shared), *_ = seen.clicks(login("dave"), "bolt-mobile")
    assert len(ann) == 2
    names = {
        "ann": ann[0],
        "ann evening": ann[1],
        "dave": id_text(dave),
        "erin": id_text(erin),
        "heidi": id_text(heidi),
        "shared": id_text(shared),
        "frank token": seen.token("corner-books", login("frank")),
    }
    yield from _first_sales(names)
    yield from _shop_sales(names)
    yield from _evening_sales(names)
    yield from _parked(names)
    yield from _march(names)
    yield from _april(names)


def _first_sales(names: dict[str, str]) -> Iterator[Row]:
    """Sales that name a click: good ones, a repeated one, and three that lead nowhere."""
    items = '[{"category":"shoes","sku":"S-7","quantity":1,"amount":"119.00","tax":"19.00"}]'
    yield "AC-1001", message(
        "08:20", "08:21", "AC-1001", "pending", click_ref=names["ann"], amount="100.00",
        commission="8.00", items=items, coupon="SPRING",
    )  # fmt: skip
    # Sequences in place of times: bolt numbers its messages.
    yield "BL-2001", message(
        "10:00", "10:20", "BL-2001", "new", "bolt-mobile", click_ref=names["heidi"],
        status_ns="", sequence="1",
    )  # fmt: skip
    yield (
        "AC-1002",
        message("10:45", "10:46", "AC-1002", "pending", click_ref=names["dave"], amount="26.09"),
    )
    yield (
        "AC-1012",
        message("10:50", "10:51", "AC-1012", "pending", click_ref=names["dave"], amount="15.00"),
    )
    approved = message(
        "12:15", "12:20", "AC-1003", "approved", click_ref=names["erin"], amount="49.99"
    )
    yield "AC-1003", approved
    yield "AC-1003 twice", approved | {"received_ns": iso("12:20:30")}
    yield "AC-1004", message(
        "12:29", "12:30", "AC-1004", "pending", amount="75.00",
        click_ref="00000000-0000-4000-8000-00000000dead",
    )  # fmt: skip
    yield (
        "BL-2002",
        message("12:20", "12:40", "BL-2002", "approved", "bolt-mobile", click_ref=names["shared"]),
    )
    yield (
        "BL-2003",
        message("12:44", "12:45", "BL-2003", "approved", "bolt-mobile", click_ref=names["erin"]),
    )
    yield "BL-2004", message(
        "12:46", "12:47", "BL-2004", "approved", "bolt-mobile", click_ref=names["heidi"],
        kind="sale", amount="9.00",
    )  # fmt: skip


def _shop_sales(names: dict[str, str]) -> Iterator[Row]:
    """Corner Books says who bought: by token, or by address and time."""

    def books(when: str, told: str, number: str, amount: str, **more: str) -> dict[str, str]:
        return message(when, told, number, "confirmed", "corner-books", amount=amount, **more)

    ivan = {"address": "2001:db8:100:7::5", "port": "51820", "at_ns": iso("13:05")}
    yield "CB-3002", books("13:05", "13:20", "CB-3002", "80.00", **ivan)
    # No sender time: the order of arrival rules, and says so.
    token = {"member": names["frank token"], "status_ns": ""}
    yield "CB-3001", books("14:20", "14:21", "CB-3001", "12.49", **token)
    gina = {"address": LINE["gina"], "at_ns": iso("15:20")}
    yield "CB-3005", books("15:20", "15:25", "CB-3005", "30.00", **gina)
    erin = {"address": LINE["erin"], "at_ns": iso("16:40")}
    yield "CB-3003", books("16:40", "16:50", "CB-3003", "22.00", **erin)
    bob = {"address": LINE["bob"], "at_ns": iso("17:10")}
    yield "CB-3004", books("17:10", "17:20", "CB-3004", "18.00", **bob)


def _evening_sales(names: dict[str, str]) -> Iterator[Row]:
    """A partner without referral, less than a point, and one that waits."""
    yield (
        "DT-4001",
        message("18:05", "18:10", "DT-4001", "approved", "delta-travel", amount="500.00"),
    )
    evening = {"click_ref": names["ann evening"]}
    yield "AC-1008", message("19:19", "19:20", "AC-1008", "approved", amount="0.15", **evening)
    yield "AC-1009", message("19:24", "19:25", "AC-1009", "pending", amount="59.90", **evening)


def _parked(names: dict[str, str]) -> Iterator[Row]:
    """Messages that cannot be counted on: each waits with its reason."""
    click = {"click_ref": names["ann evening"]}
    wrong = {
        "comma": {"amount": "12,50"},
        "dollars": {"currency": "USD"},
        "no currency": {"currency": "XTS"},
        "maybe": {"status": "maybe"},
        "nobody": {"partner": "epsilon-shop"},
        "no id": {"conversion_id": ""},
        "no time": {"event_ns": "yesterday"},
    }
    for number, (name, changes) in enumerate(wrong.items()):
        conversion, told = f"AC-11{number:02d}", f"20:0{number}"
        row = message("19:50", told, conversion, "pending", amount="10.00", **click)
        yield name, row | changes
    row = message("19:50", "20:09", "AC-1199", "approved", amount="1000.00", **click)
    values = [row.get(column, "") for column in COLUMNS["purchases"]]
    yield "torn", "\t".join(values)[:-40]


def _march(names: dict[str, str]) -> Iterator[Row]:
    """Confirmations, a correction, a decline, a pending that comes too late, an amendment."""
    yield "AC-1001 approved", message("08:20", "2026-03-03T10:00:00Z", "AC-1001", "approved")
    yield (
        "AC-1002 approved",
        message("10:45", "2026-03-03T10:00:01Z", "AC-1002", "approved", amount="26.09"),
    )
    yield "BL-2001 approved", message(
        "10:00", "2026-03-03T10:00:02Z", "BL-2001", "closed", "bolt-mobile", status_ns="",
        sequence="2",
    )  # fmt: skip
    yield "AC-1009 extended", message("19:24", "2026-03-05T10:00:00Z", "AC-1009", "approved_hold")
    yield "AC-1003 correction", message(
        "12:15", "2026-03-10T10:00:00Z", "AC-1003", "adjusted", amount="-10.00",
        amount_mode="delta", correction_of="AC-1003",
    )  # fmt: skip
    yield (
        "AC-1002 declined",
        message("10:45", "2026-03-18T12:00:00Z", "AC-1002", "declined", reason="returned"),
    )
    yield "AC-1003 late", message(
        "12:15", "2026-03-19T12:00:00Z", "AC-1003", "pending", amount="49.99",
        status_ns=iso("12:16"),
    )  # fmt: skip
    yield (
        "AC-1001 amended",
        message(
            "08:20",
            "2026-03-20T12:00:00Z",
            "AC-1001",
            "adjusted",
            amount="60.00",
            commission="4.80",
        ),
    )


def _april(names: dict[str, str]) -> Iterator[Row]:
    """Approved once more, bought too late after the click, amended back, told very late, paid."""
    yield "AC-1002 again", message("10:45", "2026-04-01T09:00:00Z", "AC-1002", "approved")
    yield "AC-1006", message(
        "2026-04-02T09:00:00Z", "2026-04-03T09:00:00Z", "AC-1006", "approved",
        click_ref=names["ann"], amount="40.00",
    )  # fmt: skip
    yield (
        "AC-1001 restored",
        message(
            "08:20",
            "2026-04-05T09:00:00Z",
            "AC-1001",
            "adjusted",
            amount="100.00",
            commission="8.00",
        ),
    )
    yield "AC-1010", message(
        "19:30", "2026-04-20T09:00:00Z", "AC-1010", "approved", amount="20.00",
        click_ref=names["ann evening"],
    )  # fmt: skip
    yield "AC-1001 paid", message("08:20", "2026-04-21T09:00:00Z", "AC-1001", "paid")
    yield "AC-1009 declined", message("19:24", "2026-04-25T09:00:00Z", "AC-1009", "declined")


def _orders() -> Iterator[Row]:
    """Ann spends most of her points, then wants more than she has; somebody unknown asks too."""
    for name, told, who, ref, points in (
        ("order", "2026-03-17T10:00:00Z", "ann", "ticket-1", "450"),
        ("order too large", "2026-03-17T10:01:00Z", "ann", "ticket-2", "10000"),
        ("order of nobody", "2026-03-17T10:02:00Z", "mallory", "ticket-3", "5"),
        ("order again", "2026-03-17T10:03:00Z", "ann", "ticket-1", "450"),
    ):
        yield (
            name,
            {
                "event_ns": told,
                "received_ns": told,
                "login": login(who),
                "ref": ref,
                "points": points,
            },
        )


def _case(places: dict[str, str]) -> str:
    """The text of case.toml."""
    prefixes = ", ".join(f'"{prefix}"' for prefix in SUBSCRIBERS)
    lines = [
        "# Written by tests/forge/forge_first_day.py; change it there.",
        f'title = "{TITLE}"',
        f'story = """{STORY}"""',
        f'seed = "{SEED}"',
        "",
        "[settings]",
        'parse_for = "listed"',
        f"subscribers = [{prefixes}]",
        "",
        "[inputs]",
        'captures = ["input.pcap"]',
        'signins = ["signins.tsv"]',
        'circle = ["circle.tsv"]',
        'purchases = ["purchases.tsv"]',
        'orders = ["orders.tsv"]',
    ]
    lines += ["", "[expect]", *(f"{name} = {count}" for name, count in EXPECT.items())]
    for table, counts in EXPECT_BY.items():
        lines += ["", f"[expect.{table}]", *(f'"{word}" = {n}' for word, n in counts.items())]
    for name, after, now, repeat in CUTS:
        lines += ["", "[[cut]]", f'name = "{name}"']
        if repeat:
            lines.append(f'repeat = "{repeat}"')
        else:
            lines += [f'after = "{places[after] if after else "end"}"', f"now = {now}"]
    return "\n".join(lines) + "\n"


# Counted by hand from the story, not from a run; the names are those of a replay's report.
EXPECT = {"visits": 19, "decisions": 19, "clicks": 6, "conversions": 19, "entries": 94}
EXPECT_BY = {
    "visits_by_kind": {"unseen": 6, "direct": 12, "affiliate": 1},
    "decisions_by_kind": {
        "pass_with_click/member_document": 6,
        "offer/listed_document": 2,
        "none/encrypted": 2,
        "none/no_document": 1,
        "none/stood_down": 1,
        "none/no_referral": 2,
        "none/matched_by_shop": 5,
    },
    "conversions_by_kind": {
        "available/awarded": 7,
        "pending/pending": 1,
        "none/declined": 1,
        "none/no_points": 1,
        "none/orphan": 3,
        "none/stood_down": 1,
        "none/outside_window": 1,
        "none/ambiguous": 1,
        "none/wrong_partner": 1,
        "none/not_a_member": 1,
        "none/no_rule": 1,
    },
    # A transfer has two. One confirmed less than was pending and returned the rest, one adjustment
    # went into debt: a transfer more each. Where points are or were available cost and margin go
    # along: six confirmed, two earned, two adjusted, one reversed.
    "entries_by_kind": {
        "earn_pending": 8 * 2,
        "confirm": 6 * 2,
        "cancel_pending": (1 + 1) * 2,
        "earn": 2 * 2,
        "adjust_delta": (2 + 1) * 2,
        "reverse": 2,
        "debt_recovery": 2,
        "reserve": 2,
        "commit": 2,
        "settle": (6 + 2 + 2 + 1) * 2 * 2,
    },
    "parked": {
        "duplicate": 1,
        "malformed": 1,
        "missing_key": 1,
        "bad_amount": 1,
        "unknown_status": 1,
        "unknown_currency": 2,
        "unknown_partner": 1,
        "bad_time": 1,
    },
    "faults": {"address_bad": 1, "quic_bad": 1, "row_malformed": 1, "time_bad": 1},
}
# What members can spend after each cut; `debt` where somebody owes, what waits under `pending`.
POINTS = {
    "evening": {
        "pending": {"ann": 799, "dave": 205, "erin": 249, "frank": 49, "heidi": 500, "ivan": 320},
    },
    "released": {
        "available": {"ann": 500, "dave": 130, "erin": 199, "frank": 49, "ivan": 320},
        "pending": {"ann": 299, "dave": 75, "heidi": 500},
    },
    "spent": {
        "available": {"ann": 50, "dave": 130, "erin": 199, "frank": 49, "ivan": 320},
        "pending": {"ann": 299, "dave": 75, "heidi": 500},
    },
    "amended": {
        "available": {"erin": 199, "frank": 49, "ivan": 320},
        "pending": {"ann": 299, "dave": 75, "heidi": 500},
        "debt": {"ann": 150},
    },
    "restored": {
        "available": {
            "ann": 50, "dave": 130, "erin": 199, "frank": 49, "heidi": 500, "ivan": 320,
        },
        "pending": {"ann": 299, "dave": 75},
    },
    "settled": {
        "available": {
            "ann": 150, "dave": 130, "erin": 199, "frank": 49, "heidi": 500, "ivan": 320,
        },
        "pending": {"dave": 75},
    },
}  # fmt: skip


if __name__ == "__main__":
    forge(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
