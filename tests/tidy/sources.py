"""The files that the tidy tests read: what git tracks; without git, what lies there."""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.need import REPOSITORY

PIPELINE = REPOSITORY / "pipeline"
LEFT_OUT = {".git", ".venv", "build", "dist", "__pycache__"}
COMPILING = {"kernel", "primitive", "routine"}
BINARY = {".pcap", ".pcapng", ".bin", ".png", ".gz"}


@functools.cache
def tracked() -> tuple[Path, ...]:
    """Every tracked file that still exists, and every new one that git would not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        names = {name for name in listed.stdout.decode().split("\0") if name}
        return tuple(sorted(p for n in names if (p := REPOSITORY / n).is_file()))
    found = (p for p in REPOSITORY.rglob("*") if not LEFT_OUT & set(p.parts) and p.is_file())
    return tuple(sorted(found))


def text_files() -> Iterator[tuple[str, str]]:
    """Name (from the repository's root) and text of every tracked text file."""
    for path in tracked():
        if path.suffix not in BINARY:
            yield short(path), path.read_text(encoding="utf-8")


def modules(folder: Path = PIPELINE) -> tuple[Path, ...]:
    """The Python files under a folder, in order."""
    return tuple(p for p in tracked() if p.suffix == ".py" and folder in p.parents)


@functools.cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def short(path: Path) -> str:
    """A path as it is written from the repository's root."""
    return path.relative_to(REPOSITORY).as_posix()


def package_of(path: Path) -> str:
    """The part of `pipeline/` that a module belongs to: its folder, or the file's own name."""
    parts = path.relative_to(PIPELINE).parts
    return parts[0] if len(parts) > 1 else path.stem


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything a module imports, wherever; relative names resolved."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                package = path.relative_to(REPOSITORY).parts[: -node.level]
                start = ".".join((*package, start) if start else package)
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an attribute chain of names; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (start := dotted(node.value)):
        return f"{start}.{node.attr}"
    return ""


def is_kernel(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Is a function compiled: by `@kernel`, or for kernels by `@primitive` or `@routine`?"""
    return any(
        dotted(d.func if isinstance(d, ast.Call) else d).rpartition(".")[2] in COMPILING
        for d in function.decorator_list
    )


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a module."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
