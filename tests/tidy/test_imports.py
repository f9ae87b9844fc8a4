"""Imports go one way, and stages do not import each other: they meet in batches."""

from __future__ import annotations

from tests.tidy.sources import PIPELINE, imported, modules, package_of, short

STAGES = ("capture", "classify", "enrich", "score", "ledger", "act")

# A part may import what stands on an earlier line, and itself; never a neighbour on its own line.
ORDER = (
    ("model",),
    ("kernels", "rulebook"),
    STAGES,
    ("engine",),
    ("store",),
    ("settings",),
    ("run",),
    ("web",),
    ("cli_options",),
    ("cli_book",),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}


def parts_imported(path):
    """Line and part of `pipeline/` of every import of ours in a module."""
    for line, name in imported(path):
        root, _, rest = name.partition(".")
        part = rest.partition(".")[0]
        if root == "pipeline" and part in RANK:
            yield line, part


def test_every_part_has_a_place_in_the_order():
    unknown = {package_of(p) for p in modules()} - set(RANK) - {"__init__", "__main__"}
    assert not unknown, f"not in ORDER: {sorted(unknown)}"


def test_imports_go_one_way():
    wrong = [
        f"{short(path)}:{line}: {package_of(path)} imports {part}"
        for path in modules()
        if package_of(path) in RANK
        for line, part in parts_imported(path)
        if part != package_of(path) and RANK[part] >= RANK[package_of(path)]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_walk_sees_imports_of_every_form():
    """The check above would pass on anything if it saw no imports at all."""
    seen = {part for path in modules() for _, part in parts_imported(path)}
    assert {"model", "kernels"} <= seen
    assert any(part == "model" for _, part in parts_imported(PIPELINE / "kernels" / "circle.py"))


def test_only_the_compiler_knows_numba():
    """It sets the cache folder first; `warm` listens to what is being compiled."""
    users = {short(p) for p in modules() for _, n in imported(p) if n.split(".")[0] == "numba"}
    assert users <= {"pipeline/kernels/compile.py", "pipeline/run/warm.py"}, users


def test_nothing_imports_the_tests_or_the_data():
    wrong = [
        f"{short(path)}:{line}: {name}"
        for path in modules()
        for line, name in imported(path)
        if name.split(".")[0] in ("tests", "rules", "replay_pcaps", "deploy", "docs")
    ]
    assert not wrong, "\n".join(wrong)


def test_no_sink_knows_a_session():
    """A session holds the names that people looked up; only visits may be stored or shown."""
    wrong = [
        short(path)
        for path in modules()
        if package_of(path) in ("store", "web") and "SessionBatch" in path.read_text()
    ]
    assert not wrong, wrong
