"""Purchases, orders and cuts of a generated day: what became of what the engine handed out.

A share of all clicks, and of the visits to the shop that matches, is bought from. Each purchase
lives one of the LIVES below; every message carries the sender's time, so that any order of
arrival must lead to the same ledger. Besides: messages that name clicks nobody handed out, and
messages nobody can read.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from pipeline.model.identifiers import id_text
from pipeline.model.times import show_time
from pipeline.model.words import Basis, VisitTrigger
from tests.forge.clicks import Pass
from tests.forge.texts import write_rows

SECOND_NS = 10**9
DAY_NS = 86_400 * SECOND_NS
START_NS = 1_772_323_200 * SECOND_NS
# (days after the purchase, status, share of the first amount or None, the message is sent twice)
Step = tuple[float, str, float | None, bool]
LIVES: tuple[tuple[Step, ...], ...] = (
    ((0.001, "pending", 1.0, False), (3, "approved", None, False)),
    ((0.001, "pending", 1.0, True), (3, "approved", 1.0, True), (21, "paid", None, False)),
    ((0.002, "pending", 1.0, False), (4, "declined", None, False)),
    ((0.001, "approved", 1.0, False), (18, "amended", 0.6, False), (33, "amended", 1.0, False)),
    (
        (0.001, "pending", 1.0, False),
        (2, "approved", None, False),
        (18, "declined", None, False),
        (32, "approved", None, False),
    ),
    ((0.001, "approved", 1.0, False), (19, "amended", 0.5, False)),
    ((25, "approved", 1.0, False),),
    ((0.001, "open", 1.0, False),),
)
CUTS = (("evening", 1), ("released", 15.5), ("amended", 20), ("restored", 36), ("settled", 65))


def write_sales(
    folder: Path, seen: Pass, login: Callable[[int], str], members: int, share: float, orders: int
) -> list[dict[str, str]]:
    """Write purchases.tsv and orders.tsv; gives the cuts, two of them repeats."""
    rng = random.Random("sales")
    messages = [
        *_from_clicks(seen, share, rng),
        *_from_visits(seen, login, members, share, rng),
        *_stray(rng, 50),
    ]
    messages.sort(key=lambda m: (m[0], m[1]["message_id"]))
    write_rows(folder / "purchases.tsv", "purchases", (row for _, row in messages))
    wishes = [_order(number, members, login, rng) for number in range(orders)]
    wishes.sort(key=lambda w: w[0])
    write_rows(folder / "orders.tsv", "orders", (row for _, row in wishes))
    cuts: list[dict[str, str]] = []
    for name, days in CUTS:
        limit = START_NS + int(days * DAY_NS)
        before = sum(received < limit for received, _ in messages)
        after = "end" if name == "settled" else f"purchases.tsv:{before}"
        if before or after == "end":
            cuts.append({"name": name, "after": after, "now": show_time(limit)})
    names = [cut["name"] for cut in cuts]
    if "amended" in names:
        place = names.index("amended") + 1
        again = [{"name": f"{n}-again", "repeat": n} for n in ("amended", "released")]
        cuts[place:place] = [c for c in again if c["repeat"] in names]
    return cuts


def _life(
    partner: str, number: str, bought_ns: int, cents: int, link: dict[str, str], rng: random.Random
) -> list[tuple[int, dict[str, str]]]:
    """All messages of one purchase, with the time each arrives."""
    sent = []
    for step, (days, status, share, twice) in enumerate(rng.choice(LIVES)):
        status_ns = bought_ns + int(days * DAY_NS)
        row = {
            "event_ns": str(bought_ns),
            "partner": partner,
            "conversion_id": number,
            "order_ref": f"R-{number}",
            "kind": "lead" if partner == "bolt-mobile" else "sale",
            "status": status,
            "status_ns": str(status_ns),
            "message_id": f"{number}/{step}",
        } | link
        if share is not None:
            amount = int(cents * share)
            row |= {"amount": f"{amount // 100}.{amount % 100:02d}", "currency": "EUR"}
        received_ns = status_ns + rng.randrange(1, 3600) * SECOND_NS
        sent.append((received_ns, row | {"received_ns": str(received_ns)}))
        if twice:
            received_ns += rng.randrange(1, 7200) * SECOND_NS
            sent.append((received_ns, row | {"received_ns": str(received_ns)}))
    return sent


def _from_clicks(seen: Pass, share: float, rng: random.Random) -> list[tuple[int, dict[str, str]]]:
    clicks, sent = seen.rows["clicks"], []
    partners, moments = clicks.partner.to_list(), clicks.clicked_ns.tolist()
    for row, (partner, clicked_ns) in enumerate(zip(partners, moments, strict=True)):
        if rng.random() < share:
            link = {"click_ref": id_text(clicks.click_id[row].tobytes())}
            bought_ns = clicked_ns + rng.randrange(60, 7200) * SECOND_NS
            cents = rng.randrange(100, 30_000)
            sent += _life(partner, f"C-{row}", bought_ns, cents, link, rng)
    return sent


def _from_visits(
    seen: Pass, login: Callable[[int], str], members: int, share: float, rng: random.Random
) -> list[tuple[int, dict[str, str]]]:
    """Purchases at the shop that matches, by token."""
    tokens = {
        seen.subscriber(login(n)): seen.token("corner-books", login(n)) for n in range(members)
    }
    visits, sent = seen.rows["visits"], []
    partners = visits.partner.to_list()
    for row in range(len(visits)):
        opened = visits.trigger[row] == VisitTrigger.OPENED
        if partners[row] != "corner-books" or not opened or rng.random() >= share:
            continue
        token = tokens.get(visits.subscriber_id[row].tobytes())
        if token and visits.basis[row] == Basis.CONSENTED:
            bought_ns = int(visits.opened_ns[row]) + rng.randrange(60, 600) * SECOND_NS
            link = {"member": token}
            number, cents = f"B-{row}", rng.randrange(100, 9_000)
            sent += _life("corner-books", number, bought_ns, cents, link, rng)
    return sent


def _stray(rng: random.Random, count: int) -> list[tuple[int, dict[str, str]]]:
    """Messages with clicks nobody handed out, and messages nobody can read."""
    wrong = ({"amount": "1,50"}, {"status": "maybe"}, {"currency": "XTS"}, {"conversion_id": ""})
    sent = []
    for number in range(count):
        bought_ns = START_NS + rng.randrange(86_400) * SECOND_NS
        link = {"click_ref": f"{rng.getrandbits(128):032x}"}
        for received_ns, row in _life("acme-shop", f"S-{number}", bought_ns, 2500, link, rng):
            changes = wrong[number % 8] if number % 8 < len(wrong) else {}
            sent.append((received_ns, row | changes))
    return sent


def _order(
    number: int, members: int, login: Callable[[int], str], rng: random.Random
) -> tuple[int, dict[str, str]]:
    """Somebody wants to spend points, some of them more than there can be."""
    when = START_NS + int(16.5 * DAY_NS) + rng.randrange(86_400) * SECOND_NS
    return when, {
        "event_ns": str(when),
        "received_ns": str(when),
        "login": login(rng.randrange(members)),
        "ref": f"ticket-{number}",
        "points": str(rng.choice((10, 100, 1000, 1_000_000))),
    }
