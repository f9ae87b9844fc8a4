"""The same input, the same points: however it is cut, in whatever order messages arrive.

By the command line, on the bundled day; test_generated_days.py asks the same of days it draws.
"""

import json
import random
import shutil

import pytest

from tests.commands import FIRST_DAY, asked, done, hashes, mirrorpoint, replayed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    state = tmp_path_factory.mktemp("whole") / "state"
    return state, replayed(FIRST_DAY, state=state)


def copied(source, target):
    """A copy of a state that nobody owns; ClickHouse keeps links in its folder."""
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))


@pytest.mark.parametrize("rows", [1, 7])
def test_cut_in_blocks(whole, tmp_path, rows):
    assert hashes(replayed(FIRST_DAY, state=tmp_path / "s", rows=rows)) == hashes(whole[1])


def test_twice_into_the_same_state_changes_nothing(whole, tmp_path):
    state = tmp_path / "s"
    copied(whole[0], state)
    assert replayed(FIRST_DAY, state=state) == whole[1]  # counts and answers, too


@pytest.mark.parametrize("name", ["visits", "decisions", "conversions", "entries"])
def test_counts_by_kind_are_parts_of_the_whole(whole, name):
    assert sum(whole[1][f"{name}_by_kind"].values()) == whole[1][name]


def test_another_input_is_refused(whole, tmp_path):
    state, case = tmp_path / "s", tmp_path / "case"
    copied(whole[0], state)
    shutil.copytree(FIRST_DAY, case)
    with open(case / "purchases.tsv", "a") as file:
        file.write("# one more line\n")
    result = mirrorpoint("replay", case, "--state", state)
    assert result.returncode == 2
    assert "made from other input" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_journal_replayed_gives_the_same(whole, tmp_path):
    state, report = whole
    again = replayed(state, state=tmp_path / "s")
    assert hashes(again) == hashes(report)
    entries = "SELECT * EXCEPT (segment, row_hash) FROM entries_log ORDER BY stream_offset"
    assert asked(tmp_path / "s", entries) == asked(state, entries)


def test_audit_holds(whole):
    checks = json.loads(done("job", "audit", "--state", whole[0], "--json"))
    assert len(checks) >= 4
    assert not any(checks.values())


def shuffled_case(folder, seed):
    """The day without orders and cuts but the last, its sender-timed messages in another order."""
    shutil.copytree(FIRST_DAY, folder)
    lines = (folder / "purchases.tsv").read_text().splitlines()
    head, rows = lines[:2], [line.split("\t") for line in lines[2:] if line[:1] not in ("", "#")]
    names = head[1].lstrip("# ").split("\t")
    received, status = names.index("received_ns"), names.index("status_ns")
    message = names.index("message_id")
    timed = [row for row in rows if len(row) > status and row[status]]
    assert len(timed) >= 8
    arrivals = sorted(row[received] for row in timed)
    draw = random.Random(seed)
    if seed:
        draw.shuffle(timed)
    for row, arrival in zip(timed, arrivals, strict=True):
        row[received] = arrival
    assert message >= 0
    (folder / "purchases.tsv").write_text("\n".join([*head, *("\t".join(r) for r in timed)]) + "\n")
    text = (folder / "case.toml").read_text()
    before, _, rest = text.partition("[[cut]]")
    now = max(part.split("\n")[0].strip(" =") for part in rest.split("now")[1:])
    expect = "[[cut]]\nname = 'end'\nafter = 'end'\nnow = " + now + "\n"
    kept = [line for line in before.splitlines() if not line.startswith("orders")]
    (folder / "case.toml").write_text("\n".join(kept) + "\n" + expect)
    return folder


def test_messages_in_another_order_of_arrival(tmp_path):
    first = replayed(shuffled_case(tmp_path / "a", 0), state=tmp_path / "sa")
    other = replayed(shuffled_case(tmp_path / "b", 1), state=tmp_path / "sb")
    assert first["ledger_hash"] == other["ledger_hash"]
    assert first["journal_hash"] != other["journal_hash"]


def test_one_flipped_byte_anywhere_is_noticed(whole, tmp_path):
    copied(whole[0], tmp_path / "untouched")
    done("job", "audit", "--state", tmp_path / "untouched")
    draw = random.Random(5)
    journal = whole[0] / "journal"
    files = [p for p in sorted(journal.rglob("*")) if p.is_file() and p.stat().st_size]
    segments = [p for p in files if p.suffix == ".segment"]
    assert len(segments) >= 8
    for number, path in enumerate(draw.sample(segments, 6)):
        state = tmp_path / f"s{number}"
        copied(whole[0], state)
        victim = state / "journal" / path.relative_to(journal)
        raw = bytearray(victim.read_bytes())
        raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
        victim.write_bytes(raw)
        result = mirrorpoint("job", "audit", "--state", state)
        assert result.returncode == 1, (path.name, result.stdout, result.stderr)
        assert "journal" in result.stdout + result.stderr
        assert "Traceback" not in result.stderr
