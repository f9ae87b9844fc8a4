"""What-if: the difference computed by hand, the line that made it, and nothing left behind."""

import json
import shutil

import pytest

from pipeline.run.causes import Change
from pipeline.run.whatif import Comparison, Difference, _money, show
from tests.commands import FIRST_DAY, done, mirrorpoint
from tests.need import REPOSITORY

RULES = REPOSITORY / "rules"
# Amounts of the purchases at acme-shop that are awarded or pending at the end, in cents, with the
# points at 5 % and at 7 % of a cent's worth each, rounded down: worked out on paper.
BY_HAND = {
    "AC-1001": (500, 700),  # 100.00
    "AC-1002": (130, 182),  # 26.09: 130.45 and 182.63
    "AC-1003": (199, 279),  # 39.99: 199.95 and 279.93
    "AC-1008": (0, 1),  # 0.15: 0.75 and 1.05
    "AC-1010": (100, 140),  # 20.00
    "AC-1012": (75, 105),  # 15.00
}


@pytest.fixture
def rules(tmp_path):
    folder = tmp_path / "rules"
    shutil.copytree(RULES, folder)
    return folder


def edit(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.fixture
def private(tmp_path):
    """A temporary folder and a working folder of the command's own; both stay empty."""
    folder = tmp_path / "private"
    (folder / "tmp").mkdir(parents=True)
    (folder / "here").mkdir()
    yield folder
    assert [str(path.relative_to(folder)) for path in sorted(folder.rglob("*"))] == ["here", "tmp"]


def asked(rules, private=None):
    """What is printed; run inside `private` where one is given."""
    words = ("whatif", FIRST_DAY, "--rules", rules, "--json")
    if private is None:
        return json.loads(done(*words))
    env = {"TMPDIR": str(private / "tmp")}
    return json.loads(done(*words, env=env, cwd=private / "here"))


@pytest.mark.slow
def test_the_same_rules_make_no_difference(rules):
    found = asked(rules)
    assert found["changes"] == found["decisions"] == found["conversions"] == []
    assert found["points"] == 0
    assert "Nothing would be different" in done("whatif", FIRST_DAY, "--rules", rules)


@pytest.mark.slow
def test_two_percent_more_for_one_partner(rules, private):
    edit(rules / "partners" / "acme-shop.toml", '"5%"', '"7%"')
    inputs = [*FIRST_DAY.rglob("*"), *rules.rglob("*")]
    before = sorted((p, p.stat().st_mtime_ns) for p in inputs)
    found = asked(rules, private)
    assert {c["id"]: c["points"] for c in found["conversions"]} == {
        name: new - old for name, (old, new) in BY_HAND.items()
    }
    assert found["points"] == sum(new - old for old, new in BY_HAND.values())
    assert found["by_partner"].keys() == {"acme-shop"}
    assert {c["partner"] for c in found["conversions"]} == {"acme-shop"}
    assert found["decisions"] == []
    # A point costs one cent. What is pending, or only now worth a point, costs or earns otherwise.
    settled = {"AC-1001", "AC-1002", "AC-1003", "AC-1010"}
    for row in found["conversions"]:
        assert row["rule"].startswith("partners/acme-shop.toml:27 accrual[0].rate")
        if row["id"] in settled:
            money = row["money"]["EUR"]
            assert money["receivable_minor"] == 0
            assert money["cost_minor"] == row["points"] == -money["margin_minor"]
    members = {row["subscriber"] for row in found["conversions"]}
    assert found["by_member"].keys() == members
    assert sum(sums["points"] for sums in found["by_member"].values()) == found["points"]
    inputs = [*FIRST_DAY.rglob("*"), *rules.rglob("*")]
    assert sorted((p, p.stat().st_mtime_ns) for p in inputs) == before


@pytest.mark.slow
def test_a_contract_without_referral_changes_decisions(rules):
    path = rules / "partners" / "bolt-mobile.toml"
    (line,) = [text for text in path.read_text().splitlines() if text.startswith("referral")]
    edit(path, line, line.replace("true", "false"))
    found = asked(rules)
    before = {row["old"].partition(" ")[0] for row in found["decisions"]}
    assert before == {"pass_with_click", "none"}  # A visit over TLS is told another reason.
    for row in found["decisions"]:
        assert row["partner"] == "bolt-mobile"
        assert row["new"] == "none (no_referral)"
        assert "partners/bolt-mobile.toml" in row["rule"]
        assert "referral" in row["rule"]
    lost = [row for row in found["conversions"] if row["points"] < 0]
    assert {row["partner"] for row in lost} == {"bolt-mobile"}


@pytest.mark.slow
def test_broken_rules_are_refused(rules, private):
    edit(rules / "partners" / "acme-shop.toml", '"5%"', '"five"')
    env = {"TMPDIR": str(private / "tmp")}
    result = mirrorpoint("whatif", FIRST_DAY, "--rules", rules, env=env, cwd=private / "here")
    assert result.returncode == 2
    assert "acme-shop.toml:27" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_what_is_no_case_is_refused(rules, tmp_path):
    result = mirrorpoint("whatif", tmp_path, "--rules", rules)
    assert result.returncode == 2
    assert "case.toml" in result.stderr


def side(name, currency, receivable, cost):
    amounts = {"receivable": receivable, "cost": cost, "margin": receivable - cost}
    return {f"{name}_currency": currency, **{f"{name}_{k}_minor": v for k, v in amounts.items()}}


def test_money_of_two_currencies_is_never_one_sum():
    rows = [
        side("old", "EUR", 100, 50) | side("new", "EUR", 130, 60),
        side("old", "EUR", 100, 50) | side("new", "JPY", 900, 500),
        side("old", "", 0, 0) | side("new", "JPY", 100, 1),
    ]
    found = Comparison("two currencies", [])
    for number, row in enumerate(rows):
        found.conversions.append(
            Difference("conversion", f"C-{number}", "", "shop", "", "", 1, _money(row), "")
        )
    sums = found.as_dict()["by_partner"]["shop"]
    assert (sums["conversions"], sums["points"]) == (3, 3)
    assert sums["money"] == {
        "EUR": {"receivable_minor": -70, "cost_minor": -40, "margin_minor": -30},
        "JPY": {"receivable_minor": 1000, "cost_minor": 501, "margin_minor": 499},
    }
    lines = [line.split() for line in show(found).splitlines()]
    first, second, *_ = (words for words in lines if words and words[-1] in ("EUR", "JPY"))
    assert first == ["shop", "+3", "-0.70", "-0.40", "-0.30", "EUR"]
    assert second == ["1000", "501", "499", "JPY"]


def test_money_is_never_cut_off():
    rows = [side("old", "EUR", 0, 0) | side("new", "EUR", 98_765_432_101, 12_345_678_902)]
    found = Comparison("wide", [])
    partner = "a-partner-with-a-name-of-" + "x" * 39
    found.conversions.append(
        Difference("conversion", "C-1", "", partner, "", "", 7, _money(rows[0]), "")
    )
    lines = show(found, 80).splitlines()
    (told,) = (line for line in lines if line.startswith("a-partner") and "EUR" in line)
    assert told.split()[1:] == ["+7", "987654321.01", "123456789.02", "864197531.99", "EUR"]
    assert all(len(line) <= 80 for line in lines if "EUR" not in line)
    assert any(
        line.startswith(f"{partner} ") and "987654321.01" in line
        for line in show(found).splitlines()
    )
    narrow = [line.split() for line in show(found, 40).splitlines()]
    assert ["points", "receivable", "cost", "margin"] in narrow  # stands above its columns


WIDE = [
    Change("trackers/affiliate.toml", 4, "hosts", '["a.example", "b.example"]', '["b.example", '
    + ", ".join(f'"shop-{n}.example"' for n in range(9)) + "]"),
    Change("partners/acme-shop.toml", 15, "contract[0].deep_link",
           '"https://in.acme.example/go?ref={click}&to={url}"',
           '"https://in.acme.example/elsewhere?campaign=spring&ref={click}&to={url}"'),
]  # fmt: skip


@pytest.mark.parametrize("width", [None, 40, 80, 200])
def test_nothing_is_cut_at_any_width(width):
    found = Comparison("long lines", WIDE)
    found.visits.append(
        Difference("decision", "a visit", "", "acme-shop", "none", "offer", 0, {}, str(WIDE[1]))
    )
    shown = show(found, width)
    if width:
        assert max(map(len, shown.splitlines())) <= width
    for change in WIDE:
        assert "".join(str(change).split()) in "".join(shown.split())
    if width is None:
        assert f"    {WIDE[1]}" in shown.splitlines()


@pytest.mark.slow
def test_of_two_keys_the_one_that_matters_is_named(rules):
    """A raise costs nobody points, and a window of one shop makes no order of another an orphan."""
    acme, bolt = rules / "partners" / "acme-shop.toml", rules / "partners" / "bolt-mobile.toml"
    edit(acme, '"5%"', '"7%"')
    edit(acme, "referral           = true", "referral           = false")
    edit(acme, '"Acme Shop"', '"Acme, the shop"')
    edit(bolt, '"30d"', '"31d"')
    found = asked(rules)
    rows = {row["id"]: row for row in found["decisions"] + found["conversions"]}
    assert rows["AC-1001"]["points"] == -500
    assert rows["BL-2003"]["partner"] == "bolt-mobile"
    referral = "partners/acme-shop.toml:16 contract[0].referral true -> false"
    assert {(row["rule"], *row["rules"]) for row in rows.values()} == {(referral, referral)}
    assert len(found["changes"]) == 4


@pytest.mark.slow
def test_a_title_is_never_named(rules):
    trackers = rules / "trackers" / "affiliate.toml"
    edit(rules / "partners" / "acme-shop.toml", '"Acme Shop"', '"Acme, the shop"')
    edit(trackers, '["trk.example", "click.track.example"]', '["other.track.example"]')
    edit(trackers, '["awc", ', "[")
    found = asked(rules)
    (visit,) = found["decisions"]
    assert (visit["old"], visit["new"].partition(" ")[0]) == (
        "none (stood_down)",
        "pass_with_click",
    )
    hosts = 'gains "other.track.example"; loses "trk.example", "click.track.example"'
    lines = [f"trackers/affiliate.toml:4 hosts {hosts}", "trackers/affiliate.toml:5 marks loses"]
    assert visit["rules"] == [lines[0], f'{lines[1]} "awc"']  # either alone would stand it down
    rows = {row["id"]: row["rule"] for row in found["conversions"]}
    assert rows["CB-3003"] == lines[0]
    assert not any("title" in rule for rule in rows.values())


@pytest.mark.slow
def test_keys_that_only_together_make_a_difference_are_all_named(rules):
    path = rules / "partners" / "acme-shop.toml"
    edit(path, '"5%"', '"6%"')
    edit(path, '"8%"', '"9%"')
    rows = {row["id"]: row for row in asked(rules)["conversions"]}
    assert len(rows["AC-1001"]["rules"]) == 1  # settled: commission is no longer due
    rate, commission = 'accrual[0].rate "5%" -> "6%"', 'contract[0].commission "8%" -> "9%"'
    assert [rule.partition(" ")[2] for rule in rows["AC-1003"]["rules"]] == [rate, commission]
    assert rows["AC-1003"]["rule"].endswith(f"{rate} (+1 more)")
