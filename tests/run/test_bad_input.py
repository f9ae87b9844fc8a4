"""Bad input by the command line: a clear message or a counted fault, never a traceback."""

import json
import random
import shutil

import pytest

from pipeline.run.failures import explain_failure
from tests.commands import FIRST_DAY, asked, done, mirrorpoint, replayed
from tests.need import REPOSITORY

pytestmark = pytest.mark.slow  # a process, or several, for each test


def quiet(result, code):
    """The run ended with this code, and nobody saw a traceback."""
    assert result.returncode == code, (result.stdout, result.stderr)
    assert "Traceback" not in result.stdout + result.stderr
    return result


def capture():
    return bytearray((FIRST_DAY / "input.pcap").read_bytes())


def damaged(kind):
    raw, draw = capture(), random.Random(kind)
    if kind == "cut in a packet":
        return raw[:-7]
    if kind == "cut in the file's head":
        return raw[:13]
    if kind == "lying length":
        raw[24 + 8 : 24 + 12] = (0x7FFFFFFF).to_bytes(4, "little")
        return raw
    if kind == "random after the head":
        return raw[:24] + draw.randbytes(40_000)
    for _ in range(400):  # flipped bytes everywhere
        raw[draw.randrange(24, len(raw))] ^= 1 << draw.randrange(8)
    return raw


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The state and report of the bundled day as it is; nobody may change the state."""
    state = tmp_path_factory.mktemp("whole") / "state"
    return state, replayed(FIRST_DAY, state=state)


KINDS = (
    "cut in a packet",
    "cut in the file's head",
    "lying length",
    "random after the head",
    "flipped bytes",
)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_captures(tmp_path, kind):
    path = tmp_path / "damaged.pcap"
    path.write_bytes(damaged(kind))
    result = mirrorpoint("inspect", path, "--format", "count", "--json")
    assert result.returncode in (0, 1)
    assert "Traceback" not in result.stderr
    counts = json.loads(result.stdout)
    assert sum(counts["faults"].values()) > 0


def whole_packets(raw):
    """How many packets of a classic little-endian capture are there to their last byte."""
    at, count = 24, 0
    while at + 16 <= len(raw):
        at += 16 + int.from_bytes(raw[at + 8 : at + 12], "little")
        count += at <= len(raw)
    return count


def told(state, until):
    """What packets up to `until` opened or asked first, version by version, and its row's hash."""
    return asked(
        state,
        "SELECT visit_id, trigger, row_hash FROM visits_log WHERE trigger IN ('opened', 'document')"
        f" AND greatest(packet_number, document_packet) <= {until}"
        " ORDER BY visit_id, stream_offset",
    )


def test_a_damaged_capture_in_a_replay_loses_no_good_row(tmp_path, whole):
    state, undamaged = whole
    case = tmp_path / "case"
    shutil.copytree(FIRST_DAY, case)
    raw = capture()
    (case / "input.pcap").write_bytes(raw[: len(raw) * 2 // 3])
    until = whole_packets(raw[: len(raw) * 2 // 3])
    assert 0 < until < whole_packets(raw)
    short = replayed(case, state=tmp_path / "short")
    assert 0 < short["visits"] < undamaged["visits"]
    assert short["faults"]["file_truncated"] == 1
    assert short["parked"] == undamaged["parked"]
    kept = told(state, until)
    assert len(kept) >= 8
    assert told(tmp_path / "short", until) == kept
    assert short["visits"] == len({row["visit_id"] for row in kept})


def test_purchases_that_nobody_can_read(tmp_path, whole):
    case = tmp_path / "case"
    shutil.copytree(FIRST_DAY, case)
    path = case / "purchases.tsv"
    draw = random.Random(1)
    bad = [draw.randbytes(60).replace(b"\n", b"").replace(b"\r", b"") for _ in range(30)]
    with open(path, "ab") as file:
        for line in bad:
            file.write(line + b"\n")
        file.write(b"\t" * 23 + b"\n" + b"x\t" * 500 + b"\n")
    _, before = whole
    after = replayed(case, state=tmp_path / "after")
    assert sum(after["parked"].values()) >= sum(before["parked"].values()) + 25
    assert after["ledger_hash"] == before["ledger_hash"]
    assert after["conversions_by_kind"] == before["conversions_by_kind"]
    done("job", "audit", "--state", tmp_path / "after")


def test_a_header_with_missing_columns(tmp_path):
    case = tmp_path / "case"
    shutil.copytree(FIRST_DAY, case)
    text = (case / "signins.tsv").read_text().replace("login", "logon", 1)
    (case / "signins.tsv").write_text(text)
    result = quiet(mirrorpoint("replay", case, "--state", tmp_path / "s"), 2)
    assert "login" in result.stderr
    assert "logon" in result.stderr


def test_rules_with_many_mistakes(tmp_path):
    rules = tmp_path / "rules"
    shutil.copytree(REPOSITORY / "rules", rules)
    acme, bolt = rules / "partners" / "acme-shop.toml", rules / "partners" / "bolt-mobile.toml"
    text = acme.read_text().replace('"5%"', '"5 percent"').replace('"live"', '"lively"')
    acme.write_text(text.replace("referral  ", "referal  "))
    bolt.write_text(bolt.read_text() + "\n[[accrual\n")
    result = quiet(mirrorpoint("rules", "check", rules), 2)
    for words in ("acme-shop.toml:", "bolt-mobile.toml:", "nearest: live", "referral"):
        assert words in result.stdout, words
    found = json.loads(quiet(mirrorpoint("rules", "check", rules, "--json"), 2).stdout)
    assert len(found) >= 4
    assert all(problem["line"] >= 1 for problem in found)
    quiet(mirrorpoint("replay", FIRST_DAY, "--rules", rules, "--state", tmp_path / "s"), 2)
    assert not (tmp_path / "s").exists()


def test_the_shipped_rules_hold():
    assert "no mistakes" in done("rules", "check")
    assert "0 failed" in done("rules", "test")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("replay", "no-such-file", "--state", "{state}"), 2),
        (("sql", "--state", "{state}", "SELECT 1"), 2),
        (("explain", "--state", "{state}"), 2),
        (("whatif", ".", "--rules", "."), 2),
        (("inspect", "no-such-file"), 2),
        (("run", "--watch", "no-such-folder", "--state", "{state}", "--parse-for", "listed"), 2),
        (("job", "accrue", "--state", "{state}"), 2),
    ],
)
def test_wrong_calls(tmp_path, words, code):
    result = mirrorpoint(*(word.replace("{state}", str(tmp_path / "s")) for word in words))
    quiet(result, code)
    assert result.stderr


def test_captures_need_a_word_on_who_may_be_read(tmp_path):
    result = mirrorpoint("replay", FIRST_DAY / "input.pcap", "--state", tmp_path / "s")
    assert "--parse-for" in quiet(result, 2).stderr


def test_points_cannot_be_minted_by_sql(whole):
    state, _ = whole
    for query in (
        "INSERT INTO entries_log SELECT * FROM entries_log",
        "DROP TABLE visits_log",
        "ALTER TABLE entries_log DELETE WHERE 1",
        "SELECT 1 INTO OUTFILE '/tmp/never'",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT 1; DROP TABLE visits_log",
    ):
        quiet(mirrorpoint("sql", "--state", state, query), 2)
    assert asked(state, "SELECT count() > 0 AS some FROM entries")[0]["some"]


def test_files_that_are_no_case_are_replayed_under_a_seed_that_nobody_can_derive(tmp_path):
    words = ("--parse-for", "listed")
    files = [FIRST_DAY / name for name in ("circle.tsv", "signins.tsv")]
    for state in ("a", "b"):
        first = mirrorpoint("replay", *files, "--state", tmp_path / state, *words, "--json")
        again = mirrorpoint("replay", *files, "--state", tmp_path / state, *words, "--json")
        assert quiet(again, 0).stdout == quiet(first, 0).stdout, "it goes on under its own seed"
    seeds = {(tmp_path / state / "keys" / "test").read_text() for state in ("a", "b")}
    assert len(seeds) == 2
    assert all(len(seed) == 64 for seed in seeds)
    given = (*words, "--seed", "mine")
    quiet(mirrorpoint("replay", *files, "--state", tmp_path / "c", *given), 0)
    assert (tmp_path / "c" / "keys" / "test").read_text() == "mine"
    quiet(mirrorpoint("replay", *files, "--state", tmp_path / "a", *given), 2)


def test_a_folder_of_somebody_else_is_refused_and_left_as_it_is(tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir(mode=0o755)
    (folder / "letter.txt").write_text("dear reader")
    folder.chmod(0o755)
    for words in (("replay", FIRST_DAY), ("run", "--watch", tmp_path, "--parse-for", "listed")):
        result = quiet(mirrorpoint(*words, "--state", folder), 2)
        assert "letter.txt" in result.stderr
    assert [path.name for path in folder.iterdir()] == ["letter.txt"]
    assert folder.stat().st_mode & 0o777 == 0o755


def test_words_and_cases_that_cannot_be_read(tmp_path):
    state = tmp_path / "s"
    wrong = ("--subscribers", "foo", "--subscribers", "192.0.2.0/24", "--subscribers", "1/2/3")
    for words in (("replay", FIRST_DAY / "input.pcap"), ("run", "--watch", tmp_path)):
        result = mirrorpoint(*words, "--state", state, "--parse-for", "listed", *wrong)
        assert "foo" in quiet(result, 2).stderr
        assert "1/2/3" in result.stderr
    case = tmp_path / "case"
    shutil.copytree(FIRST_DAY, case)
    (case / "case.toml").write_bytes(b'title = "caf\xe9"\n')
    assert "UTF-8" in quiet(mirrorpoint("replay", case, "--state", state), 2).stderr


def test_a_failure_of_the_system_without_a_file_is_told():
    assert explain_failure(OSError(28, "No space left on device")) == (
        1, "the system says: No space left on device",
    )  # fmt: skip
    assert explain_failure(OSError()) is None
