"""Causes: what makes the difference is named, nothing else is, and what is not known is said."""

import pytest

from pipeline.run.causes import KEYS_MAX, REPLAYS_MAX, Mixture, causes, changes
from tests.rulebook.texts import ACME, BOLT, POLICY, shipped

ROW = ("decision", "a visit")


def test_changes_are_found_by_key_and_line():
    old = {"a.toml": 'x = 1\n[t]\ny = "a" # a\n', "gone.toml": "z = 1\n"}
    new = {
        "a.toml": '# moved\nx = 1\n[t]\ny = "b"\n[[example]]\nq = 1\n',
        "new.toml": "w = [1, 2]\n",
    }
    assert [str(change) for change in changes(old, new)] == [
        'a.toml:4 t.y "a" -> "b"',
        "gone.toml:1 z 1 -> (none)",
        "new.toml:1 w (none) -> [1, 2]",
    ]


def test_of_a_list_what_came_and_went_is_told():
    old = {"a.toml": 'x = ["a", "b", "c"]\ny = ["a", "b"]'}
    new = {"a.toml": 'x = ["b", "d", "c", "e"]\ny = ["b", "a"]'}
    assert [str(change) for change in changes(old, new)] == [
        'a.toml:1 x gains "d", "e"; loses "a"',
        "a.toml:2 y has another order, or a value more than once",
    ]


def edited(*edits):
    """The shipped rules with texts put in the place of others, by file."""
    texts = dict(shipped())
    for name, old, new in edits:
        assert texts[name].count(old) == 1, (name, old)
        texts[name] = texts[name].replace(old, new)
    return texts


def mixture(*edits):
    return Mixture(shipped(), edited(*edits))


def keys(groups):
    return [[edit.change.key for edit in group] for group in groups]


RATE = (ACME, 'rate       = "5%"', 'rate       = "7%"')
REFERRAL = (ACME, "referral           = true", "referral           = false")
WINDOW = (BOLT, '"30d"', '"31d"')


def test_each_edit_is_made_alone_and_the_rest_stays():
    mixed = mixture(RATE, REFERRAL, WINDOW)
    old, new = (mixed.rulebook(made) for made in ((), mixed.edits))
    for edit in mixed.edits:
        found = mixed.rulebook([edit])
        acme, bolt = found.partner("acme-shop"), found.partner("bolt-mobile")
        before, after = old.partner("acme-shop"), new.partner("acme-shop")
        key = edit.change.key
        assert acme.accruals[0].rate == (after if "rate" in key else before).accruals[0].rate
        assert acme.contract.referral == ("referral" not in key)
        assert (bolt.version == old.partner("bolt-mobile").version) == ("window" not in key)
        assert (acme.match, acme.title) == (before.match, before.title)
        assert len(acme.examples) == len(before.examples)


def test_all_edits_made_are_the_new_rules():
    texts = edited(RATE, REFERRAL, WINDOW, (POLICY, '"0%"', '"50%"'))
    mixed = Mixture(shipped(), texts)
    made, new = mixed.rulebook(mixed.edits), Mixture(texts, texts).rulebook(())
    assert [p.version for p in made.partners] == [p.version for p in new.partners]
    assert made.policy.version == new.policy.version


def test_what_only_people_read_is_no_edit():
    assert mixture((ACME, '"Acme Shop"', '"Acme"'), (ACME, '"acme-terms-1"', '"2"')).groups() == []
    only = mixture((ACME, '"Acme Shop"', '"Acme"'), RATE)
    assert keys(only.groups()) == [["accrual[0].rate"]]


def test_what_cannot_stand_alone_is_made_together():
    percent = 'kind       = "percent"'
    fixed = (ACME, percent, 'kind       = "fixed"\npoints     = 9')
    rate = (ACME, 'rate       = "5%"\n', "")
    per_point = (
        ACME,
        'per_point  = "0.01"                    # one point stands for one cent\n',
        "",
    )
    mixed = mixture(fixed, rate, per_point, WINDOW)
    whole, window = mixed.groups()
    assert {e.change.key.rpartition(".")[2] for e in whole} == {
        "kind",
        "points",
        "rate",
        "per_point",
    }
    assert window[0].change.file == BOLT
    assert all(mixed.rulebook(group) is not None for group in (whole, window))


def test_a_name_that_moves_between_partners_is_one_group():
    mixed = mixture(
        (ACME, '["acme.example"] ', '["acme.example", "moved.example"]'), REFERRAL,
        (BOLT, '["bolt.example"]', '["bolt.example", "acme-two.example"]'),
    )  # fmt: skip
    assert len(mixed.groups()) == 3  # two names of nobody yet come apart
    before = edited((ACME, '["acme.example"] ', '["acme.example", "moved.example"]'))
    after = edited((BOLT, '["bolt.example"]', '["bolt.example", "moved.example"]'), WINDOW)
    groups = Mixture(before, after).groups()
    assert sorted(map(sorted, keys(groups))) == [
        ["contract[0].return_window"], ["match.hosts", "match.hosts"],
    ]  # fmt: skip


def test_a_new_file_and_a_new_table_are_one_group_each():
    texts = edited(RATE)
    text = texts.pop("partners/corner-books.toml")
    texts["partners/page-turner.toml"] = text.replace("corner-books", "page-turner").replace(
        "books-sale", "page-sale"
    )
    texts[BOLT] += (
        '[[accrual]]\nid = "bolt-new"\nkind = "fixed"\naction = "install"\npoints = 3\nvalid_from = 2026-01-01\n'
    )
    groups = Mixture(shipped(), texts).groups()
    files = [sorted({edit.change.file for edit in group}) for group in groups]
    assert files == [[ACME], [BOLT], ["partners/corner-books.toml", "partners/page-turner.toml"]]


def judged(count, rule, rows=(ROW,)):
    """Causes of rows by number where `rule(made)` says whether a set of numbers changes them."""
    old = {POLICY: "".join(f"k{n:02} = 1\n" for n in range(count))}
    new = {POLICY: "".join(f"k{n:02} = 2\n" for n in range(count))}
    groups = [(edit,) for edit in Mixture(old, new).edits]
    asked = []

    def as_new(made):
        numbers = {int(edit.change.key[1:]) for edit in made}
        asked.append(numbers)
        return frozenset(row for row in rows if rule(row, numbers))

    found = causes(groups, rows, as_new)
    named = {
        r: ([int(c.key[1:]) for c in cause.changes], cause.known) for r, cause in found.items()
    }
    return named, len(asked)


@pytest.mark.parametrize(
    ("count", "rule", "named"),
    [
        (2, lambda made: 1 in made, [1]),
        (5, lambda made: 3 in made, [3]),
        (5, lambda made: {1, 4} <= made, [1, 4]),
        (4, lambda made: 0 in made or 2 in made, [0, 2]),  # either would do
        (3, lambda made: len(made) > 1, [1, 2]),  # any two: a smallest set
        (6, lambda made: {0, 1} <= made or {2, 3} <= made, [2, 3]),
    ],
)
def test_what_makes_the_difference_is_named(count, rule, named):
    found, asked = judged(count, lambda _, made: rule(made))
    assert found == {ROW: (named, True)}
    assert asked <= REPLAYS_MAX


def test_one_key_is_the_cause_without_a_trial():
    assert judged(1, lambda _, made: False) == ({ROW: ([0], True)}, 0)


def test_two_keys_cost_two_trials():
    rows = [("decision", str(n)) for n in range(2)]
    found, asked = judged(2, lambda row, made: int(row[1]) in made, rows)
    assert found == {rows[0]: ([0], True), rows[1]: ([1], True)}
    assert asked == 2


def test_what_was_not_found_out_is_said():
    count = REPLAYS_MAX + 3
    rows = [("decision", "0"), ("decision", str(count - 1))]
    found, asked = judged(count, lambda row, made: int(row[1]) in made, rows)
    assert asked == REPLAYS_MAX
    assert found == {rows[0]: ([0], False), rows[1]: ([], False)}


def test_many_keys_are_taken_by_table_and_then_by_file():
    texts = {}
    for name in ("a", "b"):
        texts[f"partners/{name}.toml"] = (
            shipped()[ACME].replace("acme-shop", name).replace("acme-sale", f"{name}-sale")
            .replace("acme.example", f"{name}.example")
        )  # fmt: skip
    old = dict(shipped()) | texts
    new = {
        name: text.replace('"30d"', '"29d"').replace('"14d"', '"13d"').replace('"8%"', '"9%"')
        .replace('"5%"', '"6%"').replace('"0.01"', '"0.02"').replace("2026-01-01", "2026-01-02")
        for name, text in old.items()
    }  # fmt: skip
    mixed = Mixture(old, new)
    assert len(mixed.edits) > KEYS_MAX
    groups = mixed.groups()
    assert len(groups) <= KEYS_MAX
    assert sorted(e.change.key for g in groups for e in g) == sorted(
        e.change.key for e in mixed.edits
    )
    assert all(len({edit.change.file for edit in group}) == 1 for group in groups)
