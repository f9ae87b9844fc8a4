"""Files and functions stay small enough to be read at one go."""

from __future__ import annotations

import pytest

from tests.need import REPOSITORY
from tests.tidy.sources import functions, is_kernel, modules, short, tracked

FILE_LINES = 600
FUNCTION_LINES = 70
KERNEL_LINES = 120
FILE_BYTES = 1 << 20


@pytest.mark.parametrize("folder", ["pipeline", "tests"])
def test_files_are_short(folder):
    long = {
        short(path): lines
        for path in modules(REPOSITORY / folder)
        if (lines := path.read_text().count("\n")) > FILE_LINES
    }
    assert not long, long


@pytest.mark.parametrize("folder", ["pipeline", "tests"])
def test_functions_are_short(folder):
    long = []
    for path in modules(REPOSITORY / folder):
        for function in functions(path):
            lines = (function.end_lineno or 0) - function.lineno + 1
            if lines > (KERNEL_LINES if is_kernel(function) else FUNCTION_LINES):
                long.append(f"{short(path)}:{function.lineno}: {function.name} has {lines} lines")
    assert not long, "\n".join(long)


def test_no_tracked_file_is_large():
    large = {short(p): p.stat().st_size for p in tracked() if p.stat().st_size > FILE_BYTES}
    assert not large, large


def test_a_case_stays_small():
    large = {
        short(p): p.stat().st_size
        for p in tracked()
        if p.suffix == ".pcap" and "replay_pcaps" in p.parts and p.stat().st_size > 1 << 16
    }
    assert not large, large
