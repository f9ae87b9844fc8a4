"""No kernel without its naive twin, and none that raises, allocates or hides from the cache.

`TWINS` names the twin of every kernel that Python calls: a function or class in `tests/naive`. A
kernel that keeps a table for others (enters, grows, links) is compared through what the table then
answers, and shares the twin of the kernel that asks. Primitives and routines are only called by
kernels and compared through them.
"""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

from tests.need import REPOSITORY
from tests.tidy.sources import dotted, functions, imported, is_kernel, modules, short, tree

NAIVE = REPOSITORY / "tests" / "naive"

# "file under pipeline/:kernel" -> "module.name" under tests/naive.
TWINS = {
    "capture/pcap_kernels.py:frame_pcap": "pcap.frame_pcap",
    "capture/pcapng_kernels.py:frame_pcapng": "pcapng.frame_pcapng",
    "classify/flows_kernels.py:copy_flows": "flows.NaiveClassify",
    "classify/fragments_kernels.py:forget_fragments": "fragments.NaiveFragments",
    "classify/fragments_kernels.py:give_up_fragments": "fragments.NaiveFragments",
    "classify/fragments_kernels.py:join_fragments": "fragments.NaiveFragments",
    "classify/gate_kernels.py:pass_gate": "circle.NaiveCircle",
    "classify/headers_kernels.py:walk_headers": "headers.walk_headers",
    "classify/http2_kernels.py:read_request": "http2.read_request",
    "classify/quality_kernels.py:thin_out": "quality.NaiveQuality",
    "classify/quality_kernels.py:watch_packets": "quality.NaiveQuality",
    "classify/track_kernels.py:advance_track": "flows.NaiveClassify",
    "classify/track_kernels.py:forget_flows": "flows.forget",
    "classify/track_kernels.py:track_packets": "flows.NaiveClassify",
    "enrich/directory_kernels.py:prefix_fact": "directory.NaiveDirectory",
    "enrich/marks_kernels.py:find_marks": "hosts.find_marks",
    "enrich/visits_kernels.py:fold": "visits.Folder",
    "enrich/state_kernels.py:relink": "visits.Folder",
    "kernels/circle.py:add_basis": "circle.NaiveCircle",
    "kernels/circle.py:add_bindings": "circle.NaiveCircle",
    "kernels/circle.py:bases": "circle.NaiveCircle",
    "kernels/circle.py:rehash": "circle.NaiveCircle",
    "kernels/hashing.py:siphash128_words": "rowhash.siphash128_words",
    "kernels/hosts.py:_enter": "hosts.lookup_hosts",
    "kernels/hosts.py:lookup_hosts": "hosts.lookup_hosts",
    "kernels/rowhash.py:text_words": "rowhash.text_words",
    "score/limits_kernels.py:give_points": "rate.rate",
}


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


def names_and_attributes(node: ast.AST) -> set[str]:
    """Every plain name inside a node, and the last part of every dotted one."""
    return names_in(node) | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}


def dotted_module(path: Path) -> str:
    return short(path).removesuffix(".py").replace("/", ".")


def own_names(path: Path) -> dict[str, str]:
    """The kernels that a module defines or imports by name: name to where the kernel is."""
    here = {f.name: f"{short(path)}:{f.name}" for f in functions(path) if is_kernel(f)}
    every = {f"{dotted_module(p)}.{f.name}": where for where, (p, f) in kernels().items()}
    taken = {n.rpartition(".")[2]: every[n] for _, n in imported(path) if n in every}
    return here | taken


@functools.cache
def asked_from_python() -> frozenset[str]:
    """The kernels that something other than a kernel names, anywhere in the package."""
    asked: set[str] = set()
    for path in modules():
        named: set[str] = set()
        for statement in tree(path).body:
            if not is_compiled(statement):
                named |= names_in(statement)
        asked |= {where for name, where in own_names(path).items() if name in named}
    return frozenset(asked)


def is_compiled(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and is_kernel(statement)


def asked_kernels() -> set[str]:
    """Kernels that Python calls, as they stand in TWINS."""
    return {where.removeprefix("pipeline/") for where in asked_from_python()}


def test_every_kernel_has_its_naive_twin():
    assert not sorted(asked_kernels() - set(TWINS)), "no twin named in TWINS"
    assert not sorted(set(TWINS) - asked_kernels()), "TWINS names what is no kernel any more"


@pytest.mark.parametrize("twin", sorted(set(TWINS.values())))
def test_every_twin_is_there_and_compared_in_a_test(twin):
    module, name = twin.split(".")
    defined = {
        node.name
        for node in tree(NAIVE / f"{module}.py").body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    assert name in defined
    comparing = [
        short(path)
        for path in modules(REPOSITORY / "tests")
        if path.stem in run_by_tests()
        if uses(path, module, name)
    ]
    assert comparing, f"nothing compares {twin}"


@functools.cache
def run_by_tests() -> frozenset[str]:
    """Files of tests, and of what tests import: a module that nobody runs compares nothing."""
    tests = [path for path in modules(REPOSITORY / "tests") if path.name.startswith("test_")]
    names = {name for path in tests for _, name in imported(path) if name.startswith("tests.")}
    parts = {part for name in names for part in name.split(".")[1:] if "naive" not in name}
    return frozenset({path.stem for path in tests} | parts)


def uses(path: Path, module: str, name: str) -> bool:
    """Does a module outside of `tests/naive` import this twin, or its module, and name it?"""
    wanted = {f"tests.naive.{module}", f"tests.naive.{module}.{name}"}
    found = {imported_name for _, imported_name in imported(path)}
    return bool(wanted & found) and name in names_and_attributes(tree(path))


def test_every_kernel_is_asked_for():
    """A kernel that nothing calls is not tested through a caller either."""
    inside = set().union(*(names_and_attributes(f) - {f.name} for _, f in kernels().values()))
    asked = asked_from_python()
    idle = [w for w, (_, f) in kernels().items() if w not in asked and f.name not in inside]
    assert not idle, idle


def test_only_kernels_are_called_from_python():
    """Primitives and routines are not kept between runs: a call would compile them each time."""
    wrong = [
        where
        for where, (_, function) in kernels().items()
        if where in asked_from_python() and "kernel" not in decorators(function)
    ]
    assert not wrong, wrong


TOUCHES = re.compile(
    r"Touches (some )?[\d,]+ bytes.* a [\w ]+: (\d+ %|less than 1 %) of the memory's bandwidth\."
)


def test_every_kernel_says_what_memory_it_touches():
    """As `tests/bench/kernels.py` measures it."""
    silent = [
        where
        for where, (_, function) in kernels().items()
        if "kernel" in decorators(function)
        and not TOUCHES.search(" ".join((ast.get_docstring(function) or "").split()))
    ]
    assert not silent, silent


def decorators(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    return {dotted(d).rpartition(".")[2] for d in function.decorator_list}


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
