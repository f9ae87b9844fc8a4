"""No kernel without its naive twin, and none that raises, allocates or hides from the cache.

A kernel's twin is the function of the same name in a module of `tests/naive`; NAMED_OTHERWISE says
which where it is not. Kernels that only other kernels call are compared through their callers.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

from tests.need import REPOSITORY
from tests.tidy.sources import dotted, functions, imported, is_kernel, modules, short, tree

NAIVE = REPOSITORY / "tests" / "naive"

# kernel -> "module.function" under tests/naive, where the name is another one.
NAMED_OTHERWISE: dict[str, str] = {}


@functools.cache
def kernels() -> dict[str, tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every kernel of the package by its name, which must be its own."""
    found: dict[str, tuple[Path, ast.FunctionDef | ast.AsyncFunctionDef]] = {}
    for path in modules():
        for function in functions(path):
            if is_kernel(function):
                found[f"{short(path)}:{function.name}"] = (path, function)
    return found


def names_in(node: ast.AST) -> set[str]:
    """Every plain name inside a node."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def own_names(path: Path) -> set[str]:
    """The kernels that a module defines or imports by name."""
    every = {function.name for _, function in kernels().values()}
    here = {f.name for f in functions(path) if is_kernel(f)}
    return here | (every & {name.rpartition(".")[2] for _, name in imported(path)})


def asked_from_python() -> set[str]:
    """The kernels that something other than a kernel names, anywhere in the package."""
    asked: set[str] = set()
    for path in modules():
        outside = [s for s in tree(path).body if not is_compiled(s)]
        asked |= own_names(path) & set().union(*(names_in(s) for s in outside))
    return asked


def is_compiled(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and is_kernel(statement)


def twins() -> dict[str, str]:
    """Function name to module name of everything in `tests/naive`."""
    return {
        node.name: path.stem
        for path in modules(NAIVE)
        for node in tree(path).body
        if isinstance(node, ast.FunctionDef)
    }


def twin_of(name: str) -> str:
    return NAMED_OTHERWISE.get(name, name).rpartition(".")[2]


def test_every_kernel_has_its_naive_twin():
    asked, have = asked_from_python(), twins()
    missing = [
        where
        for where, (_, function) in kernels().items()
        if function.name in asked and twin_of(function.name) not in have
    ]
    assert not missing, "\n".join(missing)


def test_every_kernel_is_asked_for():
    """A kernel that nothing calls is not tested through a caller either."""
    asked = asked_from_python()
    inside = set().union(*(names_in(f) - {f.name} for _, f in kernels().values()))
    idle = [w for w, (_, f) in kernels().items() if f.name not in asked | inside]
    assert not idle, idle


def test_every_twin_is_compared_in_a_test():
    compared: set[str] = set()
    for path in modules(REPOSITORY / "tests"):
        if path.name.startswith("test_") and "tests.naive" in path.read_text():
            compared |= names_in(tree(path))
    named = {twin_of(f.name) for _, f in kernels().values()} & set(twins())
    assert not named - compared, sorted(named - compared)


def test_twins_do_not_lean_on_kernels():
    kernel_modules = {short(path) for path, _ in kernels().values()}
    leaning = [
        f"{short(path)}: {node.module}"
        for path in modules(NAIVE)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom)
        and f"{(node.module or '').replace('.', '/')}.py" in kernel_modules
        and {a.name for a in node.names} & {f.name for _, f in kernels().values()}
    ]
    assert not leaning, leaning


def test_kernels_live_where_the_cache_looks():
    """The cache is named by a hash of these files; a kernel elsewhere could be served stale."""
    outside = [
        where
        for where, (path, _) in kernels().items()
        if path.parent.name != "kernels" and not path.name.endswith("_kernels.py")
    ]
    assert not outside, outside


def test_kernels_never_raise():
    raising = [
        f"{where}:{node.lineno}"
        for where, (_, function) in kernels().items()
        for node in ast.walk(function)
        if isinstance(node, ast.Raise | ast.Assert | ast.Try)
    ]
    assert not raising, raising


def test_kernels_never_allocate():
    makers = {"zeros", "empty", "ones", "full", "array", "arange", "concatenate", "copy", "append"}
    allocating = [
        f"{where}:{node.lineno}: {dotted(node.func)}"
        for where, (_, function) in kernels().items()
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and (name := dotted(node.func)).startswith("np.")
        and name.removeprefix("np.") in makers
    ]
    assert not allocating, allocating
