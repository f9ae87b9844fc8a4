"""The documents say what the program does: every command, fault and folder, and no other."""

from __future__ import annotations

import ast
import re

import pytest

from pipeline.cli import main
from pipeline.model.faults import Fault, Skip
from pipeline.rulebook.fields import Fields
from pipeline.run import cases
from tests.need import REPOSITORY
from tests.tidy.pages import PAGES
from tests.tidy.sources import modules, short, text_files, tracked, tree

ROW = re.compile(r"^\| (\d+) \| `(\w+)` \| (.+) \|$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
PAGE_LINES = 100

# Variables that are not ours to tell of.
OF_THE_SYSTEM = {"CI", "HOME", "TMPDIR", "XDG_CACHE_HOME", "PATH"}

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
    """Is a folder told of in a README above it, or the mirror of one that has its own?"""
    path = REPOSITORY / folder
    if folder.startswith("tests/") and (REPOSITORY / "pipeline" / path.name).is_dir():
        return True
    above = [p / "README.md" for p in path.parents if p.is_relative_to(REPOSITORY)]
    told = "".join(page.read_text() for page in above if page.exists())
    return re.search(rf"[`\[/ ]{re.escape(path.name)}[`\]/]", told) is not None


def test_every_setting_is_documented():
    """Variables of the environment, keys of a case, keys of the rules."""
    pages = {name: text for name, text in text_files() if name.endswith(".md")}
    everything = "\n".join(pages.values())
    sources = [path.read_text() for path in (*modules(), *modules(REPOSITORY / "tests"))]
    asked = {n for text in sources for n in re.findall(r"environ\.get\(\s*\"(\w+)\"", text)}
    ours = {name for name in asked if name not in OF_THE_SYSTEM}
    ours |= {n for text in sources for n in re.findall(r"\"(MIRRORPOINT_[A-Z]+)\"", text)}
    assert {"MIRRORPOINT_CACHE", "MIRRORPOINT_CRASH", "DAY_VISITS"} <= ours
    assert not [name for name in sorted(ours) if name not in everything]
    models = (cases.CaseText, cases.SettingsText, cases.InputsText, cases.CutText)
    keys = {key for model in models for key in model.model_fields}
    page = pages["replay_pcaps/README.md"]
    assert not [key for key in sorted(keys) if not re.search(rf"\b{key}\b", page)]
    page = pages["rules/README.md"]
    assert len(rule_keys()) > 30
    words = ({f"`{key}`", f"[{key}]"} for key in sorted(rule_keys()))  # a key, or a table's head
    assert not [sorted(word) for word in words if not any(w in page for w in word)]


def rule_keys() -> set[str]:
    """Every key that the reader of rules asks for, by its word in the source."""
    readers = {name for name in dir(Fields) if not name.startswith("_")}
    return {
        node.args[0].value
        for name in ("kinds.py", "accruals.py")
        for node in ast.walk(tree(REPOSITORY / "pipeline" / "rulebook" / name))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in readers
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


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
