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
    for name in ("input.pcap", "purchases.tsv"):
        (tmp_path / name).write_text("")
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
    assert len(found) == 5
    assert any("did you mean 'listed'" in p for p in found)
    assert any("nearest file: input.pcap" in p for p in found)
    assert any("'dawn', which is no earlier cut" in p for p in found)
    assert any("goes back" in p for p in found)
    assert any("192.0.2.0/99" in p for p in found)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('seed = "seven"', "", "seed"),
        ('title = "A day"', 'title = "A day"\ncolour = "red"', "colour"),
        ('after = "purchases.tsv:2"', 'after = "purchases.tsv"', "FILE:ROW"),
        ('after = "purchases.tsv:2"', "", "needs 'after' and 'now'"),
        ('name = "night"', 'name = "noon"', "the name is taken"),
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
