"""What the README shows is what the commands print."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import FIRST_DAY, done
from tests.need import REPOSITORY

LEFT_OUT = "..."
BLOCK = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def block_with(text: str) -> list[str]:
    """The lines of the README's code block that holds `text`."""
    page = (REPOSITORY / "README.md").read_text()
    (found,) = [b for b in BLOCK.findall(page) if text in b]
    return [line for line in textwrap.dedent(found).splitlines() if not line.startswith("$ ")]


def assert_shown(block: list[str], printed: str) -> None:
    """The block's lines are printed in this order, others between them only where it says so."""
    rest: Iterator[str] = iter(printed.splitlines())
    skipping = True
    for line in block:
        if line.strip() == LEFT_OUT:
            skipping = True
            continue
        for told in rest:
            if told == line:
                break
            assert skipping, f"README has {line!r}, printed is {told!r}"
        else:
            pytest.fail(f"not printed: {line!r}")
        skipping = False


@pytest.mark.slow
def test_the_demo_prints_what_the_readme_shows():
    assert_shown(block_with("why: mirrorpoint explain"), done("demo"))


@pytest.mark.slow
def test_whatif_prints_what_the_readme_shows(tmp_path: Path):
    rules = tmp_path / "rules"
    shutil.copytree(REPOSITORY / "rules", rules)
    partner = rules / "partners" / "acme-shop.toml"
    text, changed = re.subn(r'^(rate\s*=\s*)"5%"', r'\1"7%"', partner.read_text(), flags=re.M)
    assert changed == 1
    partner.write_text(text)
    assert_shown(block_with("What if: "), done("whatif", FIRST_DAY, "--rules", rules))


@pytest.mark.parametrize(
    ("block", "good"),
    [
        (["b", "c"], True),
        (["a", "...", "d"], True),
        (["a", "c"], False),
        (["d", "a"], False),
        (["x"], False),
    ],
)
def test_lines_may_be_left_out_only_where_it_says_so(block, good):
    printed = "a\nb\nc\nd\n"
    if good:
        assert_shown(block, printed)
    else:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            assert_shown(block, printed)
