"""Members' facts as an input file: a level counts from its date on, however the file arrives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.commands import FIRST_DAY, done, replayed
from tests.need import REPOSITORY

pytestmark = pytest.mark.slow  # replays in processes of their own

HEAD = "# mirrorpoint members v1\nreceived_ns\tevent_ns\tlogin\tjoined\tlevel\tproducts\n"
GOLD = """
[[accrual]]
id         = "acme-gold"
kind       = "multiplier"
action     = "sale"
factor     = 2
stacking   = "multiply"
priority   = 200
valid_from = 2026-01-01
when       = {levels = ["gold"]}
"""
FACTS = (
    "2026-02-21T00:00:00Z\t2026-02-20T00:00:00Z\tann@isp.example\t2024-02-20T00:00:00Z\tgold\ttv",
    "2026-02-22T00:00:00Z\t2026-02-20T00:00:00Z\tann@isp.example\t\tsilver\t",
    "2026-02-23T00:00:00Z\t2026-02-21T00:00:00Z\tann@isp.example\t\tGold\t",
    "2026-02-24T00:00:00Z\t2026-02-20T00:00:00Z\tnobody@isp.example\t\tgold\t",
)


def case_with(folder: Path, *facts: str) -> Path:
    """The bundled day under rules that give gold members twice the points."""
    shutil.copytree(FIRST_DAY, folder)
    shutil.copytree(REPOSITORY / "rules", folder / "rules")
    shop = folder / "rules" / "partners" / "acme-shop.toml"
    shop.write_text(shop.read_text() + GOLD)
    (folder / "members.tsv").write_text(HEAD + "".join(f"{fact}\n" for fact in facts))
    text = (folder / "case.toml").read_text().partition("[expect")[0]
    cuts = (folder / "case.toml").read_text().partition("[[cut]]")
    text = text if "[[cut]]" in text else text + cuts[1] + cuts[2]
    text = text.replace("[inputs]", 'XX[inputs]\nmembers = ["members.tsv"]', 1)
    head, _, rest = text.partition("XX")
    lines = head.splitlines()
    place = next(n for n, line in enumerate(lines) if line.startswith("["))
    lines.insert(place, 'rules = "rules"')
    (folder / "case.toml").write_text("\n".join(lines) + "\n" + rest)
    return folder


def test_a_level_doubles_what_is_bought_and_arrival_does_not_matter(tmp_path):
    plain = replayed(case_with(tmp_path / "plain"), state=tmp_path / "one")
    gold = replayed(case_with(tmp_path / "gold", *FACTS), state=tmp_path / "two")
    other = replayed(case_with(tmp_path / "other", *FACTS[::-1]), state=tmp_path / "three")
    assert plain["ledger_hash"] != gold["ledger_hash"] == other["ledger_hash"]
    asked = "SELECT sum(points) AS points FROM conversions WHERE partner = 'acme-shop' AND state != 'none'"
    points = [
        json.loads(done("sql", "--state", tmp_path / state, "--json", asked))
        for state in ("one", "two")
    ]
    assert points[0] != points[1]
    kinds = "SELECT count() AS facts FROM commands_log WHERE kind = 'member_facts'"
    told = done("sql", "--state", tmp_path / "two", "--json", kinds)
    assert "3" in told, "of nobody in the circle nothing is kept"
    assert "isp.example" not in done(
        "sql", "--state", tmp_path / "two", "--json", "SELECT * FROM commands_log"
    )
