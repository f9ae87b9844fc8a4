"""Stages know no clock, no file, no socket and no random number; only the ends touch the world."""

from __future__ import annotations

import ast

from tests.tidy.sources import dotted, imported, modules, package_of, short, tree
from tests.tidy.test_imports import STAGES

PURE = ("model", "kernels", "rulebook", *STAGES, "engine")

# Modules of the world outside. A file that needs one stands in ALLOWED with its reason.
WORLD = {
    "asyncio", "builtins", "fcntl", "http", "io", "logging", "mmap", "multiprocessing", "os",
    "pathlib", "random", "secrets", "select", "shutil", "signal", "socket", "sqlite3", "ssl",
    "subprocess", "sys", "tempfile", "threading", "time", "urllib",
}  # fmt: skip

ALLOWED: dict[str, set[str]] = {
    # where compiled kernels are cached
    "pipeline/kernels/compile.py": {"os", "pathlib", "tempfile"},
    # captures, and the thread that reads them ahead
    "pipeline/capture/ahead.py": {"os", "threading"},
    "pipeline/capture/blocks.py": {"os"},
    # the text files that are dropped into the watched folder
    "pipeline/capture/facts.py": {"pathlib"},
    # tells what a file is by its first bytes
    "pipeline/capture/recognise.py": {"pathlib"},
    # the folder of rules
    "pipeline/rulebook/read.py": {"pathlib"},
}

# Calls that ask the world something, whatever the module was imported as.
CALLS = {"open", "input", "print", "exec", "eval", "breakpoint"}
ENDINGS = (
    ".now", ".utcnow", ".today", ".uuid1", ".uuid4", ".token_bytes", ".urandom", ".getenv",
    ".read_text", ".read_bytes", ".write_text", ".write_bytes", ".fromfile", ".tofile", ".memmap",
)  # fmt: skip
CALLS_ALLOWED: dict[str, set[str]] = {
    "pipeline/kernels/compile.py": {"read_text", "read_bytes"},
    "pipeline/capture/facts.py": {"open"},
    "pipeline/capture/recognise.py": {"open"},
    "pipeline/rulebook/read.py": {"read_bytes"},
}


def pure_modules():
    return [p for p in modules() if package_of(p) in PURE]


def test_pure_modules_import_nothing_of_the_world():
    wrong = [
        f"{short(path)}:{line}: {name}"
        for path in pure_modules()
        for line, name in imported(path)
        if (root := name.split(".")[0]) in WORLD and root not in ALLOWED.get(short(path), set())
    ]
    assert not wrong, "\n".join(wrong)


def test_pure_modules_ask_the_world_nothing():
    wrong = []
    for path in pure_modules():
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Call):
                continue
            name = dotted(node.func) or (
                f".{node.func.attr}" if isinstance(node.func, ast.Attribute) else ""
            )
            last = name.rpartition(".")[2]
            asks = name in CALLS or (f".{last}" in ENDINGS and "." in name) or "np.random" in name
            if asks and last not in CALLS_ALLOWED.get(short(path), set()):
                wrong.append(f"{short(path)}:{node.lineno}: {name}()")
    assert not wrong, "\n".join(wrong)


def test_nothing_rests_on_the_order_of_hash():
    """`hash(text)` differs from process to process; what is computed must not."""
    wrong = [
        f"{short(path)}:{node.lineno}"
        for path in modules()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and dotted(node.func) == "hash"
    ]
    assert not wrong, wrong


def test_the_allow_lists_hold_nothing_that_is_not_used():
    """An exception that nobody needs any more is an open door."""
    for name, allowed in ALLOWED.items():
        path = next((p for p in modules() if short(p) == name), None)
        assert path is not None, f"{name} is gone"
        used = {n.split(".")[0] for _, n in imported(path)}
        assert allowed <= used, f"{name} no longer imports {sorted(allowed - used)}"


def test_only_the_ends_print():
    wrong = [
        f"{short(path)}:{node.lineno}"
        for path in modules()
        if package_of(path) not in ("cli", "cli_options", "run")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and dotted(node.func) in ("print", "click.echo", "sys.stdout.write")
    ]
    assert not wrong, wrong


def test_no_column_holds_objects():
    wrong = []
    for path in modules():
        for node in ast.walk(tree(path)):
            if dotted(node) == "np.object_" if isinstance(node, ast.Attribute) else False:
                wrong.append(f"{short(path)}:{node.lineno}")
            if isinstance(node, ast.Call):
                name = dotted(node.func)
                given = [*node.args, *(k.value for k in node.keywords if k.arg == "dtype")]
                asks = name.startswith("np.") or name.endswith(".astype")
                if asks and any(dotted(a) == "object" for a in given):
                    wrong.append(f"{short(path)}:{node.lineno}")
    assert not wrong, wrong


def test_no_state_is_pickled():
    wrong = [
        f"{short(path)}:{line}"
        for path in modules()
        for line, name in imported(path)
        if name.split(".")[0] in ("pickle", "shelve", "marshal", "dill")
    ]
    assert not wrong, wrong
