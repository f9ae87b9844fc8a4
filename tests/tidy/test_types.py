"""Every function is annotated, kernels aside: Numba infers those, and mypy then checks the rest."""

from __future__ import annotations

from tests.tidy.sources import functions, is_kernel, modules, short


def bare_arguments(function) -> list[str]:
    """Names of the arguments of a function that carry no type, and `return` where it has none."""
    spec = function.args
    named = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs]
    named += [a for a in (spec.vararg, spec.kwarg) if a]
    bare = [a.arg for a in named if a.annotation is None and a.arg not in ("self", "cls")]
    return bare + ([] if function.returns else ["return"])


def test_every_function_is_annotated():
    bare = [
        f"{short(path)}:{function.lineno}: {function.name}: {', '.join(missing)}"
        for path in modules()
        for function in functions(path)
        if not is_kernel(function) and (missing := bare_arguments(function))
    ]
    assert not bare, "\n".join(bare)
