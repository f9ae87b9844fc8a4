"""The documents say what the program does: every command, fault and folder, and no other."""

from __future__ import annotations

import ast
import re

import pytest

from pipeline.cli import main
from pipeline.model.faults import Fault, Skip
from tests.need import REPOSITORY
from tests.tidy.pages import PAGES
from tests.tidy.sources import modules, short, text_files, tracked, tree

ROW = re.compile(r"^\| (\d+) \| `(\w+)` \| (.+) \|$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
PAGE_LINES = 100

# Folders whose files need no words beyond their own.
NO_README = {".ci", "."}


@pytest.mark.parametrize(("words", "heading"), [(Fault, "## Faults"), (Skip, "## Skips")])
def test_every_fault_and_skip_has_its_sentence(words, heading):
    page = (REPOSITORY / "docs" / "faults.md").read_text()
    section = page.split(f"\n{heading}", 1)[1].split("\n## ", 1)[0]
    rows = {int(number): (name, sentence) for number, name, sentence in ROW.findall(section)}
    expected = {int(word): word.name.lower() for word in words if int(word)}
    assert {number: name for number, (name, _) in rows.items()} == expected
    assert not [n for n, s in rows.values() if len(s) < 15 or not s.endswith(".")]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_that_follow_from_the_code_are_fresh(path):
    assert path.read_text() == PAGES[path](), f"{short(path)} is stale: `make docs` rewrites it"


def test_every_command_is_documented():
    """The page is generated; this says that the generator misses none."""
    page = (REPOSITORY / "docs" / "commands.md").read_text()
    names = {n for n, c in main.commands.items() if not c.hidden}
    assert not [n for n in names if f"## mirrorpoint {n}" not in page]


def test_commands_in_the_documents_exist():
    known = {*main.commands, "COMMAND"}
    unknown = [
        f"{name}: mirrorpoint {word}"
        for name, text in text_files()
        if name.endswith(".md")
        for word in re.findall(r"`(?:\$ )?mirrorpoint ([A-Za-z][\w-]*)", text)
        if word not in known
    ]
    assert not unknown, unknown


def test_every_folder_says_what_it_is_for():
    folders = {short(p.parent) for p in tracked() if p.parent != REPOSITORY}
    kept = {f for f in folders if not f.startswith(tuple(NO_README))}
    own = {f for f in kept if f.count("/") <= 1 and not f.startswith(("replay_pcaps/first-day/",))}
    missing = [
        f for f in sorted(own) if not (REPOSITORY / f / "README.md").exists() and not covered(f)
    ]
    assert not missing, missing


def covered(folder: str) -> bool:
    """Is a folder one of many of a kind, told of in the README above it?"""
    return folder.startswith(("rules/", "tests/", "replay_pcaps/", "docs/", "requirements"))


def test_a_readme_is_one_page():
    long = {
        name: text.count("\n")
        for name, text in text_files()
        if name.endswith("/README.md") and text.count("\n") > PAGE_LINES
    }
    assert not long, long


def test_links_lead_somewhere():
    broken = [
        f"{name}: {target}"
        for name, text in text_files()
        if name.endswith(".md")
        for target in LINK.findall(text)
        if not (REPOSITORY / name).parent.joinpath(target).exists()
    ]
    assert not broken, broken


def test_the_first_screen_shows_the_two_commands():
    first = (REPOSITORY / "README.md").read_text().splitlines()[:30]
    assert any("make demo" in line for line in first)
    assert any("make test" in line for line in first)


def test_every_debian_package_is_named_in_the_readme():
    readme = (REPOSITORY / "README.md").read_text()
    lines = (REPOSITORY / "tests" / "debian-packages.txt").read_text().splitlines()
    packages = [name for line in lines if (name := line.partition("#")[0].strip())]
    assert packages
    assert not [name for name in packages if f"`{name}`" not in readme]


def test_the_make_targets_in_the_documents_exist():
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    unknown = [
        f"{name}: make {target}"
        for name, text in text_files()
        if name.endswith(".md")
        for target in re.findall(r"`make ([a-z-]+)", text)
        if target not in targets
    ]
    assert not unknown, unknown


def test_every_module_opens_with_its_theory():
    bare = [
        short(path)
        for path in modules()
        if path.name != "__init__.py" and not ast.get_docstring(tree(path))
    ]
    assert not bare, bare
