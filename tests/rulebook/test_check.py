"""What `rules check` and `rules test` show."""

from __future__ import annotations

from pipeline.rulebook.check import run_examples, show_problem, show_problems
from pipeline.rulebook.model import Problem
from pipeline.rulebook.read import load
from tests.rulebook.texts import ACME, BOLT, TRACKERS, rules, shipped


def failed(rulebook):
    return [result for result in run_examples(rulebook) if not result.passed]


def test_the_examples_of_the_shipped_rules_pass():
    results = run_examples(load())
    assert len(results) >= 16
    assert not failed(load())
    assert {r.owner for r in results} == {
        "acme-shop",
        "bolt-mobile",
        "corner-books",
        "delta-travel",
        "affiliate",
    }


def test_an_example_that_fails_says_where_and_what():
    (one,) = failed(rules(ACME, ("points = 130", "points = 131")))
    assert (one.found, one.expected) == ("130", "131")
    text = shipped()[ACME]
    last = text[: text.rindex("[[example]]")]
    assert one.location.line == last.count("\n") + 1
    assert str(one) == (
        f"{ACME}:{one.location.line}: example[4]: FAILED: acme-shop: sale of 26.09: "
        "found 130, expected 131"
    )


def test_a_changed_rate_is_still_a_rulebook_but_its_example_fails():
    (one,) = failed(rules(ACME, ('"5%"', '"7%"')))
    assert one.found == "182"


def test_names_are_decided_among_all_partners():
    """A name that somebody else claims more closely is not matched."""
    (one,) = failed(rules(BOLT, ('["bolt.example"]', '["bolt.example", "m.acme.example"]')))
    assert (one.owner, one.asked, one.found) == ("acme-shop", "host m.acme.example", "ignored")


def test_a_tracker_has_examples_too():
    (one,) = failed(rules(TRACKERS, ('is   = "ignored"', 'is   = "matched"')))
    assert (one.owner, one.location.file) == ("affiliate", TRACKERS)


LATER = """[[accrual]]
id         = "acme-sale-2027"
kind       = "percent"
action     = "sale"
rate       = "10%"
per_point  = "1"
valid_from = 2027-01-01

[[example]]
action = "sale"
amount = 1000
points = 100

[[example]]
action = "sale"
amount = 1000.00
points = 5000
at     = 2026-06-01

[[example]]
action = "sale"
amount = "1000.005"
points = 0

[[example]]
action = "sale"
amount = "1"
points = 0
at     = 2020-01-01

[[example]]
host = "m."""


def test_examples_choose_the_rule_by_time():
    ends = ("\n\n[[example]]", "\nvalid_until = 2027-01-01\n\n[[example]]")
    rulebook = rules(ACME, ends, ('[[example]]\nhost = "m.', LATER))
    found = {r.asked + " -> " + r.found for r in run_examples(rulebook) if r.owner == "acme-shop"}
    assert "sale of 1000 -> 100" in found
    assert "sale of 1000.00 -> 5000" in found
    assert "sale of 1000.005 -> '1000.005' has more than 2 decimals" in found
    assert "sale of 1 -> no contract at that time" in found
    assert "sale of 26.09 -> 2" in found


def test_problems_as_text():
    one = Problem("a.toml", 3, "match.hosts[0]", '"x"', "a host name", "y.example")
    other = Problem("b.toml", 1, "", "nothing", "a file")
    assert show_problem(one) == (
        'a.toml:3: match.hosts[0]: found "x", expected a host name; nearest: y.example'
    )
    assert show_problems([one, other]).split("\n") == [str(one), str(other)]
