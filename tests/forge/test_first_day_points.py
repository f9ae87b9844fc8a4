"""Points of the bundled day, cut by cut, against the figures worked out by hand."""

from __future__ import annotations

import uuid
from collections import defaultdict
from pathlib import Path

import pytest

from pipeline.model.words import ParseFor
from pipeline.run.cases import load_case
from tests.commands import asked, replayed
from tests.forge.clicks import run_stages
from tests.forge.first_day_traffic import LINE, SEED, SUBSCRIBERS, login
from tests.forge.forge_first_day import CUTS, FOLDER, POINTS

MEMBERS = ("ann", "dave", "erin", "frank", "heidi", "ivan")
Balances = dict[str, dict[str, int]]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first-day") / "state"
    report = replayed(FOLDER, state=folder)
    assert report["results"].keys() >= {"ok", "exists", "stale"}
    return folder


@pytest.fixture(scope="module")
def names() -> dict[str, str]:
    """Members by subscriber id."""
    seen = run_stages(load_case(FOLDER).files, SEED, SUBSCRIBERS, ParseFor.LISTED)
    listed = {name.split()[0] for name in LINE} - {"oscar", "gina"}
    return {str(uuid.UUID(bytes=seen.subscriber(login(name)))): name for name in sorted(listed)}


@pytest.fixture(scope="module")
def entries(state: Path) -> list[dict[str, str]]:
    return asked(
        state,
        "SELECT toInt64(cut) AS cut, kind, account, toInt64(amount) AS amount FROM entries"
        " WHERE commodity = 'PTS' ORDER BY sequence, leg",
    )


def balances(entries: list[dict[str, str]], names: dict[str, str], cut: int) -> Balances:
    """What is not zero on members' accounts after a cut; a debt is positive, as debits are."""
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for entry in entries:
        if int(entry["cut"]) <= cut and entry["account"].startswith("member:"):
            _, member, account = entry["account"].split(":")
            sign = 1 if account == "debt" else -1
            sums[account, names[member]] += sign * int(entry["amount"])
    found: Balances = {}
    for (account, name), points in sums.items():
        if points:
            found.setdefault(account, {})[name] = points
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", POINTS)
def test_points_after_each_cut(
    entries: list[dict[str, str]], names: dict[str, str], name: str
) -> None:
    number = [n for n, *_ in CUTS].index(name) + 1
    assert balances(entries, names, number) == POINTS[name]


def test_cuts_that_come_again_book_nothing(entries: list[dict[str, str]]) -> None:
    again = {n for n, (_, _, _, repeat) in enumerate(CUTS, start=1) if repeat}
    assert len(again) == 2
    assert not [e for e in entries if int(e["cut"]) in again]


def test_only_members_have_accounts(entries: list[dict[str, str]], names: dict[str, str]) -> None:
    accounts = {e["account"].split(":")[1] for e in entries if e["account"].startswith("member:")}
    assert {names[member] for member in accounts} == set(MEMBERS)


def test_points_issued_are_points_held_or_spent(entries: list[dict[str, str]]) -> None:
    total: dict[str, int] = defaultdict(int)
    for entry in entries:
        total[entry["account"].split(":")[0]] += int(entry["amount"])
    assert sum(total.values()) == 0
    spent = -sum(int(e["amount"]) for e in entries if ":redeemed" in e["account"])
    assert spent == 450
    held = sum(sum(POINTS["settled"][kind].values()) for kind in ("available", "pending"))
    issued = sum(int(e["amount"]) for e in entries if e["account"].endswith(":issued"))
    assert issued == held + spent


def test_every_conversion_says_why(state: Path) -> None:
    rows = asked(state, "SELECT conversion_id, toString(reason) AS reason FROM conversions")
    found = {row["conversion_id"]: row["reason"] for row in rows}
    assert found == {
        "AC-1001": "awarded",
        "AC-1002": "awarded",
        "AC-1003": "awarded",
        "AC-1004": "orphan",
        "AC-1006": "outside_window",
        "AC-1008": "no_points",
        "AC-1009": "declined",
        "AC-1010": "awarded",
        "AC-1012": "pending",
        "BL-2001": "awarded",
        "BL-2002": "ambiguous",
        "BL-2003": "wrong_partner",
        "BL-2004": "no_rule",
        "CB-3001": "awarded",
        "CB-3002": "awarded",
        "CB-3003": "stood_down",
        "CB-3004": "not_a_member",
        "CB-3005": "orphan",
        "DT-4001": "orphan",
    }
