"""case.toml: what is right is read, and every mistake is listed at once."""

from datetime import UTC, datetime

import pytest

from pipeline.model.words import ParseFor
from pipeline.run.cases import CaseError, load_case, parse_prefix, prefix_text, to_ns

GOOD = """
title = "A day"
seed = "seven"
[settings]
parse_for = "listed"
subscribers = ["192.0.2.0/24", "2001:db8::/32"]
[inputs]
captures = ["input.pcap"]
purchases = ["purchases.tsv"]
[[cut]]
name = "noon"
after = "purchases.tsv:2"
now = 2026-03-01T12:00:00Z
[[cut]]
name = "night"
after = "end"
now = 2026-03-01T23:00:00Z
[[cut]]
name = "noon again"
repeat = "noon"
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "input.pcap").write_text("")
    (tmp_path / "purchases.tsv").write_text("# purchases\ncolumn\n# a note\none\n\ntwo\nthree\n")
    return tmp_path


def problems_of(folder, text):
    (folder / "case.toml").write_text(text)
    with pytest.raises(CaseError) as raised:
        load_case(folder)
    return raised.value.problems


def test_a_good_case(folder):
    (folder / "case.toml").write_text(GOOD)
    case = load_case(folder)
    assert case.seed == "seven"
    assert case.settings.parse_for is ParseFor.LISTED
    assert [path.name for path in case.files] == ["input.pcap", "purchases.tsv"]
    noon, night, again = case.cuts
    assert (noon.file.name, noon.row) == ("purchases.tsv", 2)
    assert night.file is None
    assert again.repeat == "noon"
    assert noon.now_ns == to_ns(datetime(2026, 3, 1, 12, tzinfo=UTC))


def test_every_mistake_at_once(folder):
    text = GOOD.replace('"listed"', '"listted"').replace("input.pcap", "imput.pcap")
    text = text.replace('repeat = "noon"', 'repeat = "dawn"')
    text = text.replace("2026-03-01T23", "2026-03-01T11").replace("192.0.2.0/24", "192.0.2.0/99")
    found = problems_of(folder, text)
    assert told(folder, found) == [
        '5: settings.parse_for: found "listted", expected one of consented, listed; nearest: listed',
        '6: settings.subscribers[0]: found "192.0.2.0/99", '
        "expected an address prefix such as 192.0.2.0/24",
        '8: inputs.captures[0]: found "imput.pcap", expected a file beside it; nearest: input.pcap',
        "17: cut[1].now: found 2026-03-01 11:00:00+00:00, "
        "expected no time before that of the cut above",
        '20: cut[2].repeat: found "dawn", expected an earlier cut',
    ]


def told(folder, problems):
    """Each with the file's name, which is left out here."""
    start = f"{folder / 'case.toml'}:"
    assert all(problem.startswith(start) for problem in problems)
    return [problem.removeprefix(start) for problem in problems]


def test_mistakes_of_shape_hide_no_others(folder):
    """An unknown key is taken for the missing one that it looks like: one mistake, not two."""
    text = GOOD.replace("captures =", "capture =").replace(
        "now = 2026-03-01T12", "nwo = 2026-03-01T12"
    )
    text = text.replace('"listed"', '"all"').replace('["192.0.2.0/24", ', '["1", 7, ')
    text = text.replace('["purchases.tsv"]', '["purchases.tsv", "signins.tsv"]')
    text = text.replace('"purchases.tsv:2"', '"purchases.tsv:999"').replace(
        'seed = "seven"', "seed = 7"
    )
    assert told(folder, problems_of(folder, text)) == [
        "3: seed: found 7, expected a text",
        '5: settings.parse_for: found "all", expected one of consented, listed',
        '6: settings.subscribers[0]: found "1", expected an address prefix such as 192.0.2.0/24',
        "6: settings.subscribers[1]: found 7, expected a text",
        '8: inputs.capture: found unknown key "capture", expected one of the keys '
        "captures, signins, circle, members, purchases, orders; nearest: captures",
        '9: inputs.purchases[1]: found "signins.tsv", expected a file beside it; '
        "nearest: purchases.tsv",
        '12: cut[0].after: found "purchases.tsv:999", expected a row from 1 to 3',
        '13: cut[0].nwo: found unknown key "nwo", expected one of the keys '
        "name, after, now, repeat; nearest: now",
    ]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('seed = "seven"', 'sede = "seven"', '3: sede: found unknown key "sede", expected one of the '
         "keys title, story, seed, rules, settings, inputs, cut, expect; nearest: seed"),
        ('seed = "seven"', "", "1: seed: found nothing, expected a text"),
        ('"purchases.tsv:2"', '"purchases.tsv:0"',
         '12: cut[0].after: found "purchases.tsv:0", expected a row from 1 to 3'),
        ('"purchases.tsv:2"', '"purchase.tsv:2"', '12: cut[0].after: found "purchase.tsv:2", expected '
         "'end' or FILE:ROW with a text file of [inputs]; nearest: purchases.tsv"),
        ('seed = "seven"', 'seed = "seven"\nrules = "rulse"',
         '4: rules: found "rulse", expected a folder of rules'),
        ('captures = ["input.pcap"]', 'captures = "input.pcap"',
         '8: inputs.captures: found "input.pcap", expected an array of file names'),
        ("now = 2026-03-01T23:00:00Z", 'now = "tonight"', '17: cut[1].now: found "tonight", '
         "expected a date and time such as 2026-03-01T12:00:00Z"),
        ('name = "night"\n', "", "14: cut[1].name: found nothing, expected a text"),
    ],
)  # fmt: skip
def test_one_mistake_is_told_once(folder, old, new, problem):
    assert told(folder, problems_of(folder, GOOD.replace(old, new))) == [problem]


@pytest.mark.parametrize("text", ["", "settings = 1\ninputs = 2\ncut = 3\nexpect = 4", "cut = [1]",
    "[cut]\nname = 1", "[settings]\n[inputs]\n[[cut]]", "title = []\n[[settings]]", "[a.b.c]"])  # fmt: skip
def test_whatever_is_wrong_is_told(folder, text):
    found = told(folder, problems_of(folder, text))
    assert len(found) == len(set(found)) > 0
    assert all(": found " in problem and "expected " in problem for problem in found)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('seed = "seven"', "", "seed"),
        ('title = "A day"', 'title = "A day"\ncolour = "red"', "colour"),
        ('after = "purchases.tsv:2"', 'after = "purchases.tsv"', "FILE:ROW"),
        ('after = "purchases.tsv:2"', "", "found nothing, expected 'after' and 'now'"),
        ('name = "night"', 'name = "noon"', "a name that no other cut has"),
        ("[settings]", "[settings", "case.toml"),
    ],
)
def test_one_mistake(folder, old, new, word):
    assert any(word in problem for problem in problems_of(folder, GOOD.replace(old, new)))


def test_prefixes():
    assert parse_prefix("192.0.2.0/24") == (0, 0xFFFF_C000_0200, 120)
    assert parse_prefix("2001:db8::/32") == (0x20010DB8 << 32, 0, 32)
    assert parse_prefix("198.51.100.7") == (0, 0xFFFF_C633_6407, 128)


@pytest.mark.parametrize(
    "text",
    ["192.0.2.0/24", "198.51.100.7/32", "0.0.0.0/0", "2001:db8::/32", "::/0"],
)
def test_prefixes_are_shown_as_people_write_them(text):
    assert prefix_text(parse_prefix(text)) == text


def test_times_are_exact():
    assert to_ns(datetime(2026, 3, 1, 0, 0, 0, 1)) == 1772323200_000001000
    assert to_ns(datetime.fromisoformat("2026-03-01T01:00:00+01:00")) == 1772323200_000000000
