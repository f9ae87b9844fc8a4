"""Rules are read whole or not at all, and every mistake is listed with its place."""

from __future__ import annotations

import json
import tomllib
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.model.stage import END_OF_TIME
from pipeline.rulebook.model import Problem, RulebookError
from pipeline.rulebook.read import from_texts, load, problems_of, shipped_rules
from tests.rulebook.texts import (
    ACME,
    BOLT,
    DELTA,
    POLICY,
    PROGRAMME,
    TRACKERS,
    changed,
    line_of,
    problem,
    problems,
    rules,
    shipped,
)

DAY_NS = 86400 * 10**9
NEW_YEAR_2026 = 1767225600 * 10**9


def test_the_shipped_rules_are_right():
    rulebook = load()
    assert [p.id for p in rulebook.partners] == [
        "acme-shop",
        "bolt-mobile",
        "corner-books",
        "delta-travel",
    ]
    assert shipped_rules().name == "rules"
    assert rulebook.programme.currency == "EUR"
    assert [t.id for t in rulebook.trackers] == ["affiliate"]


def test_text_and_texts_are_the_same_rulebook():
    rulebook = load()
    again = from_texts(json.loads(rulebook.text()))
    assert again == rulebook
    assert again.hash == rulebook.hash
    assert again.text() == rulebook.text()


def test_a_comment_changes_the_hash_and_no_version():
    plain, commented = load(), rules(ACME, ("title", "# a remark\ntitle"))
    assert commented.hash != plain.hash
    assert [p.version for p in commented.partners] == [p.version for p in plain.partners]


def test_a_rate_changes_the_version_of_its_accrual_and_partner_alone():
    plain, other = load(), rules(ACME, ('"5%"', '"7%"'))
    assert other.partner("acme-shop").version != plain.partner("acme-shop").version
    one, two = plain.partner("acme-shop").accruals[0], other.partner("acme-shop").accruals[0]
    assert one.version != two.version
    assert other.partner("bolt-mobile").version == plain.partner("bolt-mobile").version
    assert other.policy.version == plain.policy.version


@pytest.mark.parametrize("spelling", ['"0.05"', '"1/20"', '"5.0%"', "0.05", '"5/100"'])
def test_the_same_rate_is_the_same_version(spelling):
    assert rules(ACME, ('"5%"', spelling)).partners == tuple(
        p if p.id != "acme-shop" else rules(ACME, ('"5%"', spelling)).partner("acme-shop")
        for p in load().partners
    )
    versions = {p.version for p in rules(ACME, ('"5%"', spelling)).partners}
    assert versions == {p.version for p in load().partners}


def test_where_leads_back_to_file_and_line():
    rulebook = load()
    for partner in rulebook.partners:
        for accrual in partner.accruals:
            place = rulebook.where(accrual.version)
            assert place.file == f"partners/{partner.id}.toml"
            assert rulebook.files[place.file].split("\n")[place.line - 1] == "[[accrual]]"
    place = rulebook.where(rulebook.policy.version)
    assert str(place) == f"{POLICY}:{line_of(rulebook.files[POLICY], 'policy  ')}: policy"
    assert rulebook.where(bytes(16)) is None


def test_dates_begin_at_midnight_where_the_programme_is():
    assert load().partner("acme-shop").contract.valid_from_ns == NEW_YEAR_2026
    berlin = rules(PROGRAMME, ('"UTC"', '"Europe/Berlin"'))
    assert berlin.partner("acme-shop").contract.valid_from_ns == NEW_YEAR_2026 - 3600 * 10**9
    exact = rules(
        ACME, ("valid_from         = 2026-01-01", "valid_from = 2026-01-01T00:30:00+01:00")
    )
    assert exact.partner("acme-shop").contract.valid_from_ns == NEW_YEAR_2026 - 1800 * 10**9


SECOND_CONTRACT = (
    "[[accrual]]",
    """[[contract]]
version            = "acme-2027"
valid_from         = 2027-01-01
click_delivery     = "none"
referral           = false
attribution_window = "7d"
return_window      = "0d"
currency           = "EUR"
commission         = "1%"

[[accrual]]""",
)
OLD_ENDS = ('terms              = "acme-terms-1"', "valid_until = 2027-01-01")


def test_contracts_and_accruals_are_chosen_by_the_time_of_the_event():
    acme = rules(ACME, SECOND_CONTRACT, OLD_ENDS).partner("acme-shop")
    change = NEW_YEAR_2026 + 365 * DAY_NS
    assert acme.contract.version == "acme-2027"
    assert acme.contract_at(change).version == "acme-2027"
    assert acme.contract_at(change - 1).version == "acme-2026"
    assert acme.contract_at(NEW_YEAR_2026 - 1) is None
    assert acme.contract.valid_until_ns == END_OF_TIME
    assert acme.contract.terms == ""


def test_an_accrual_for_the_action_comes_before_one_for_any():
    more = """
[[accrual]]
id = "acme-rest"
kind = "fixed"
action = "any"
points = 10
valid_from = 2025-01-01

[[example]]
host = "m"""
    acme = rules(ACME, ('\n[[example]]\nhost = "m', more)).partner("acme-shop")
    assert [a.id for a in acme.accruals_at("sale", NEW_YEAR_2026)] == ["acme-sale", "acme-rest"]
    assert [a.id for a in acme.accruals_at("lead", NEW_YEAR_2026)] == ["acme-rest"]
    assert [a.id for a in acme.accruals_at("sale", NEW_YEAR_2026 - 1)] == ["acme-rest"]
    assert acme.accruals_at("sale", 0) == ()


def test_names_in_their_own_script_are_kept_as_a_labels():
    hosts = ('hosts    = ["acme.example"]', 'hosts = ["Bücher.example", "acme.example"]')
    assert rules(ACME, hosts).partner("acme-shop").match.hosts == (
        "acme.example",
        "xn--bcher-kva.example",
    )


def read_mistakes() -> list[tuple[str, tuple[str, str], str, str, str, str]]:
    """File, what is exchanged, key, part of what was found, part of what was expected, nearest."""
    text = (Path(__file__).parent / "mistakes.txt").read_text()
    blocks = [b.split("\n") for b in text.strip("\n").split("\n\n") if not b.startswith("#")]
    rows = []
    for name, old, new, told in blocks:
        edit = (json.loads(old[2:]), json.loads(new[2:]))
        key, found, expected, near = (part.strip(" ") for part in f"{told} ".split(" |"))
        rows.append((name, edit, key, found, expected, near))
    return rows


MISTAKES = read_mistakes()


@pytest.mark.parametrize(
    ("name", "edit", "key", "found", "expected", "near"),
    MISTAKES,
    ids=[f"{m[2]}-{n}" for n, m in enumerate(MISTAKES)],
)
def test_a_mistake_is_named(name, edit, key, found, expected, near):
    one = problem(name, edit)
    assert (one.file, one.key) == (name, key)
    assert found in one.found
    assert expected in one.expected
    assert one.nearest == near
    text = changed(name, edit)[name]
    last = key.rpartition(".")[2].partition("[")[0]
    if one.found != "nothing":
        near_lines = text.split("\n")[max(one.line - 2, 0) : one.line + 1]
        assert any(last in line for line in near_lines), (one, near_lines)


def test_all_mistakes_come_at_once():
    texts = shipped()
    wanted = []
    used: dict[str, set[str]] = {}
    for name, (old, new), key, *_ in MISTAKES:
        head = key.partition(".")[0].partition("[")[0]
        if head in ("mach", "acrual", "experimant"):
            continue  # a renamed table hides what is inside
        if head in used.setdefault(name, set()) or old not in texts[name]:
            continue
        if name == PROGRAMME and head == "timezone":
            continue
        used[name].add(head)
        texts[name] = texts[name].replace(old, new, 1)
        wanted.append((name, key))
    assert len(wanted) >= 12
    found = {(p.file, p.key) for p in problems(texts)}
    assert set(wanted) <= found


def test_problems_are_sorted_and_the_error_shows_them_all():
    texts = changed(ACME, ('"live"', '"lvie"'), ('"5%"', '"500%"'))
    texts = changed(POLICY, ('"30s"', '"30x"'), texts=texts)
    found = problems(texts)
    assert found == sorted(found)
    assert [p.file for p in found] == [ACME, ACME, POLICY]
    with pytest.raises(RulebookError) as caught:
        from_texts(texts)
    assert len(str(caught.value).split("\n")) == 3


def test_a_problem_as_text():
    one = problem(ACME, ('"live"', '"lvie"'))
    line = line_of(shipped()[ACME], "status")
    assert str(one) == (
        f'{ACME}:{line}: status: found "lvie", expected one of draft, live, paused; nearest: live'
    )


@pytest.mark.parametrize(
    ("edit", "line"),
    [
        (('title   = "Acme Shop"', "title = "), 2),
        (("[match]", "[match"), 5),
        (("[[example]]", '[[example]]\nhost = "a'), 33),
    ],
)
def test_broken_toml_has_a_line(edit, line):
    one = problem(ACME, edit)
    assert (one.file, one.key, one.expected) == (ACME, "", "TOML")
    assert abs(one.line - line) <= 1
    assert one.found


def test_a_broken_file_does_not_hide_the_mistakes_of_others():
    texts = changed(ACME, ("[match]", "[match"))
    texts = changed(BOLT, ('"live"', '"lively"'), texts=texts)
    assert [(p.file, p.key) for p in problems(texts)] == [(ACME, ""), (BOLT, "status")]


def test_two_partners_may_not_claim_the_same_name():
    one = problem(BOLT, ('["bolt.example"]', '["bolt.example", "acme.example"]'))
    assert (one.file, one.key, one.found) == (BOLT, "match.hosts[1]", '"acme.example"')
    line = line_of(shipped()[ACME], "hosts ")
    assert f"partner acme-shop does not claim ({ACME}:{line})" in one.expected


def test_a_partner_may_not_claim_the_name_of_a_tracker():
    one = problem(TRACKERS, ('"trk.example"', '"acme.example"'))
    assert "partner acme-shop" in one.expected


def test_a_name_under_another_partners_name_is_allowed():
    rulebook = rules(BOLT, ('["bolt.example"]', '["bolt.example", "bolt.acme.example"]'))
    assert "bolt.acme.example" in rulebook.partner("bolt-mobile").match.hosts


def test_an_accrual_id_stands_for_one_rule_only():
    one = problem(BOLT, ('"bolt-lead"', '"acme-sale"'))
    assert (one.file, one.key) == (BOLT, "accrual[0].id")
    assert ACME in one.expected


def test_dates_may_not_overlap():
    second = SECOND_CONTRACT[1]
    one = problem(ACME, (SECOND_CONTRACT[0], second))
    assert one.key == "contract[1].valid_from"
    assert "overlap" in one.found
    more = 'id = "more"\nkind = "fixed"\naction = "sale"\npoints = 1\nvalid_from = 2027-01-01\n'
    one = problem(ACME, ("[[example]]", f"[[accrual]]\n{more}\n[[example]]"))
    assert one.key == "accrual[1].valid_from"
    assert "action sale" in one.expected


def test_a_contract_version_is_used_once():
    second = SECOND_CONTRACT[1].replace("acme-2027", "acme-2026")
    one = problem(ACME, (SECOND_CONTRACT[0], second), OLD_ENDS)
    assert one.key == "contract[1].version"


def test_a_partner_needs_a_contract():
    text = shipped()[DELTA]
    start, stop = text.index("[[contract]]"), text.index("[[accrual]]")
    one = problem(DELTA, (text[start:stop], ""))
    assert (one.key, one.found, one.expected) == (
        "contract",
        "nothing",
        "[[contract]], at least one",
    )


def test_a_partner_needs_an_example_of_each_kind():
    one = problem(DELTA, ('is   = "ignored"', 'is   = "matched"'))
    assert (one.key, one.found) == ("example", "only matched ones")
    text = shipped()[DELTA]
    one = problem(DELTA, (text[text.index("[[example]]") :], ""))
    assert (one.key, one.found) == ("example", "nothing")


def test_a_partner_needs_names():
    for names in ("", "hosts = []", "exact = []"):
        one = problem(DELTA, ('hosts    = ["delta.example"]', names))
        assert (one.key, one.found) == ("match.hosts", "nothing")


def test_files_that_are_missing_or_too_many():
    texts = shipped()
    del texts[PROGRAMME]
    assert [p.file for p in problems(texts)] == [PROGRAMME]
    texts = shipped()
    del texts[POLICY]
    assert [p.expected for p in problems(texts)] == ["one policy"]
    texts = shipped()
    texts["policies/more.toml"] = texts[POLICY].replace('"default"', '"more"')
    assert [p.file for p in problems(texts)] == ["policies/more.toml"]


def test_a_file_in_the_wrong_place():
    texts = shipped()
    texts["partner/acme-shop.toml"] = texts.pop(ACME)
    (one,) = problems(texts)
    assert (one.file, one.nearest) == ("partner/acme-shop.toml", ACME)


def test_no_partners_at_all_is_a_rulebook():
    texts = {
        name: text for name, text in shipped().items() if "/" not in name or "policies" in name
    }
    assert from_texts(texts).partners == ()


def write(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_folder_gives_what_its_texts_give(tmp_path):
    folder = write(tmp_path, shipped() | {"README.md": "# not a rule", "partners/notes.txt": "x"})
    assert load(folder) == load()
    assert problems_of(folder) == []


def test_a_folder_that_is_not_there(tmp_path):
    (one,) = problems_of(tmp_path / "nowhere")
    assert one.found == "no folder"


def test_bytes_that_are_no_text_and_files_that_are_too_long(tmp_path):
    folder = write(tmp_path, shipped())
    (folder / ACME).write_bytes(b"# one\npartner = '\xff'\n")
    (folder / BOLT).write_text("#" * (1 << 20) + "\n")
    found = problems_of(folder)
    assert [(p.file, p.line) for p in found] == [(ACME, 2), (BOLT, 1)]
    assert [p.expected for p in found] == ["UTF-8 text", "at most 1048576 bytes"]


def test_windows_line_ends_change_no_version():
    texts = {name: text.replace("\n", "\r\n") for name, text in shipped().items()}
    rulebook = from_texts(texts)
    assert [p.version for p in rulebook.partners] == [p.version for p in load().partners]
    assert rulebook.hash != load().hash
    place = rulebook.partner("acme-shop").accruals[0].location
    assert place == load().partner("acme-shop").accruals[0].location


VALUES = st.recursive(
    st.sampled_from(["1", "-1", "0.5", "nan", '""', '"x"', "true", "2026-01-01", "07:32:00", "{}"]),
    lambda inner: st.lists(inner, max_size=3).map(lambda v: "[" + ", ".join(v) + "]"),
    max_leaves=3,
)


@given(st.sampled_from(sorted(shipped())), st.data())
def test_any_value_anywhere_is_read_or_reported(name, data):
    """Whatever stands behind a key, the answer is a rulebook or problems, never a traceback."""
    texts = shipped()
    lines = texts[name].split("\n")
    places = [i for i, line in enumerate(lines) if "=" in line and not line.startswith("#")]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(places))
        key = lines[at].partition("=")[0]
        lines[at] = data.draw(st.sampled_from([f"{key}= {data.draw(VALUES)}", f"zz{key}= 1", ""]))
        if not lines[at]:
            places.remove(at)
    texts[name] = "\n".join(lines)
    try:
        tomllib.loads(texts[name])
    except tomllib.TOMLDecodeError:
        return
    found: list[Problem] = []
    try:
        from_texts(texts)
    except RulebookError as error:
        found = error.problems
    assert all(p.expected and p.found for p in found)
    lines_there = texts[name].count("\n") + 1
    assert all(1 <= p.line <= lines_there for p in found if p.file == name)


@given(st.text(max_size=60))
def test_any_text_is_read_or_reported(text):
    with pytest.raises(RulebookError):
        from_texts(shipped() | {ACME: text})


def test_a_programme_may_say_what_it_expects_to_lapse():
    said = ("expiry           =", 'expected_lapse = "20%"\nexpiry           =')
    found = rules(PROGRAMME, said).programme
    assert found.expected_lapse == Fraction(1, 5)
    usual = from_texts(shipped()).programme
    assert (usual.expected_lapse, usual.version == found.version) == (0, False)
    wrong = ("expiry           =", 'expected_lapse = "120%"\nexpiry           =')
    assert problem(PROGRAMME, wrong).key == "expected_lapse"
