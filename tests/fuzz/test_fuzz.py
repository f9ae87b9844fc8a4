"""Every target on its seeds, on hardly any bytes, and guided for some seconds; and the harness."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import broken, fuzzing
from tests.fuzz.target import Tape, same
from tests.fuzz.targets import TARGETS
from tests.need import REPOSITORY, need

HALVES = sorted(TARGETS)[::2], sorted(TARGETS)[1::2]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("names", HALVES)
def test_no_input_that_a_guided_fuzzer_finds_is_too_much(names: list[str], tmp_path: Path) -> None:
    need("atheris")
    fuzzed, found = fuzzing.fuzz(names, 0, 1, tmp_path)
    assert not found, "\n\n".join(map(str, found))
    assert [one.name for one in fuzzed] == names
    for one in fuzzed:
        seeds = len(TARGETS[one.name].seeds())
        assert one.inputs > one.kept > seeds, f"{one}: the fuzzer found nothing new, so it is blind"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_harness_tells_what_raises_what_hangs_and_what_differs_when_compiled(tmp_path: Path):
    need("atheris")
    names = ["raises", "hangs", "differs", "good"]
    _, found = fuzzing.fuzz(names, 0, 1, tmp_path, "tests.fuzz.broken", 2)
    told = {one.name: one for one in found}
    assert {name: one.how for name, one in told.items()} == {
        "raises": "crash", "hangs": "timeout", "differs": "compiled",
    }  # fmt: skip
    for one in found:
        assert not broken.check_good(one.raw)
        assert f"tests.fuzz {one.name} --input {one.raw.hex()}" in str(one)
    assert "ValueError: not plain" in str(told["raises"])
    assert "ValueError: only when compiled" in str(told["differs"])


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_every_seed_is_read_as_the_twin_reads_it(name):
    seeds = TARGETS[name].seeds()
    assert len(set(seeds)) == len(seeds) > 3
    assert max(map(len, seeds)) <= TARGETS[name].longest
    for seed in seeds:
        TARGETS[name].check(seed)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_no_input_is_too_short(name):
    for raw in (b"", b"\0", b"\xff", b"\0\0", b"\xff\xff\xff\xff"):
        TARGETS[name].check(raw)


@pytest.mark.slow
def test_one_input_is_checked_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_bytes(b"shop.example")
    command = [sys.executable, "-m", "tests.fuzz", "facts", "--input"]
    for given in (b"shop.example".hex(), str(file)):
        subprocess.run([*command, given], cwd=REPOSITORY, check=True)
    done = subprocess.run([*command, "no digits"], cwd=REPOSITORY, check=False, capture_output=True)
    assert b"ValueError" in done.stderr
    done = subprocess.run([*command[:3], "nothing"], check=False, capture_output=True, text=True)
    assert (done.returncode, "no target nothing" in done.stderr) == (2, True)


def test_a_difference_raises_with_both_sides():
    same([1], [1])
    with pytest.raises(AssertionError, match=r"(?s)kernel: 1.*twin:   2"):
        same(1, 2)


def test_a_tape_ends():
    tape = Tape(b"\1\2\3")
    assert (tape.byte(), tape.number(4), bool(tape), tape.byte(), tape.rest()) == (
        1,
        0x02030000,
        False,
        0,
        b"",
    )
