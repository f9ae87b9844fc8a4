"""How kernels are compiled and where the compiled code is kept.

Every kernel uses `kernel` in place of `numba.njit`. Importing this module is what sets the cache
folder, before Numba is first imported: its name is a hash of all kernel sources, Numba's version,
the CPU and the flags, because a cached caller does not notice that a primitive in another file
changed, and a warm cache ignores NUMBA_BOUNDSCHECK. Where no folder can be written, nothing is
cached and everything still works.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import math
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

PACKAGE = Path(__file__).resolve().parent.parent
FLAGS = (
    "NUMBA_BOUNDSCHECK",
    "NUMBA_DISABLE_JIT",
    "NUMBA_OPT",
    "NUMBA_CPU_NAME",
    "NUMBA_CPU_FEATURES",
)
LINE_BYTES = 64
F = TypeVar("F", bound=Callable[..., Any])


def kernel_sources(package: Path = PACKAGE) -> list[Path]:
    """All files that hold kernels: `kernels/*.py` and `*_kernels.py`, sorted."""
    return sorted({*package.glob("kernels/*.py"), *package.glob("**/*_kernels.py")})


def fingerprint(package: Path = PACKAGE) -> str:
    """Sixteen hex digits that change when compiled code could."""
    h = hashlib.blake2b(digest_size=8)
    for word in (
        importlib.metadata.version("numba"),
        importlib.metadata.version("llvmlite"),
        platform.python_version(),
        _cpu(),
        *(f"{name}={os.environ.get(name, '')}" for name in FLAGS),
    ):
        h.update(word.encode() + b"\0")
    for source in kernel_sources(package):
        h.update(
            source.relative_to(package).as_posix().encode() + b"\0" + source.read_bytes() + b"\0"
        )
    return h.hexdigest()


def _cpu() -> str:
    """The processor's model and flags, as the kernel of the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n", 1)[0].splitlines()
    except OSError:
        return platform.machine()
    return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features")))


def cache_folder() -> Path | None:
    """Where compiled kernels are kept, made if need be; None where nothing can be written."""
    roots = [os.environ.get("MIRRORPOINT_CACHE"), os.environ.get("XDG_CACHE_HOME")]
    home = os.environ.get("HOME")
    if home:
        roots.append(os.path.join(home, ".cache"))
    name = f"mirrorpoint/kernels-{fingerprint()}"
    for root in roots:
        if root and _writable(folder := Path(root) / name):
            return folder
    private = Path(tempfile.gettempdir()) / f"mirrorpoint-{os.getuid()}"
    folder = private / name
    if _writable(folder) and private.stat().st_uid == os.getuid() and not private.is_symlink():
        private.chmod(0o700)
        return folder
    return None


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


CACHE = cache_folder()
if CACHE is not None:
    os.environ["NUMBA_CACHE_DIR"] = str(CACHE)

import llvmlite.binding  # noqa: E402  (the folder has to be set first)
import llvmlite.ir  # noqa: E402
import numba  # noqa: E402
import numba.extending  # noqa: E402
import numpy as np  # noqa: E402
from numba.core import cgutils, config  # noqa: E402

INTERPRETED = bool(getattr(config, "DISABLE_JIT", 0))  # NUMBA_DISABLE_JIT, for tests

# Kernels never allocate, so nobody has to count references to arrays. Numba would, atomically, for
# every array of a tuple at every call and at every mention in a loop: a session of a visit took 3.1
# microseconds with the counting and 1.2 without. A kernel that does allocate fails to compile.
OPTIONS: dict[str, Any] = {"nogil": True, "_nrt": False}


def kernel(function: F) -> F:
    """Compile to native code, without the GIL, kept between runs."""
    if INTERPRETED:
        return function
    compiled: F = numba.njit(cache=CACHE is not None, **OPTIONS)(function)
    return compiled


def primitive(function: F) -> F:
    """A kernel that is always built into the kernels that call it.

    A call that the compiler does not inline hands over every array by its seven fields and counts
    its references up and down: the header walk ran at 220 ns a packet with such calls, at 33
    without.
    """
    if INTERPRETED:
        return function
    compiled: F = numba.njit(forceinline=True, **OPTIONS)(function)
    return compiled


def routine(function: F) -> F:
    """A kernel that only other kernels call, and too large to be built into each of them.

    Neither this nor a primitive is kept between runs by itself: whoever calls it has it in its own
    cache entry, and an entry for each of a hundred routines would cost more to write than to
    compile.
    """
    if INTERPRETED:
        return function
    compiled: F = numba.njit(**OPTIONS)(function)
    return compiled


def records(dtype: np.dtype, *shape: int) -> np.ndarray:
    """Zeroed records for kernels: plain arrays for compiled ones, with attributes for Python.

    They begin where a cache line does, so that a record of 64 bytes is one line and not parts of
    two. What is never touched is never resident.
    """
    size = math.prod(shape) * dtype.itemsize
    room = np.zeros(size + LINE_BYTES, np.uint8)
    start = -room.ctypes.data % LINE_BYTES
    empty = room[start : start + size].view(dtype).reshape(shape)
    return empty.view(np.recarray) if INTERPRETED else empty


FOREIGN_TYPES: dict[str, Any] = {
    "i": numba.types.int32,
    "p": numba.types.intp,
    "v": numba.types.void,
}


def foreign(name: str, signature: str, function: Any, address: int) -> Callable[..., Any]:
    """A C function as kernels call it, by a symbol: a pointer could not be kept between runs.

    `signature` is a letter for the result and one for each argument: `i` an int, `p` an address,
    `v` nothing. The symbol is to be there before a kernel that names it is loaded, also where it
    stands for something else; without JIT the ctypes `function` is called.
    """
    if INTERPRETED:
        return lambda *arguments: function(*map(int, arguments))
    llvmlite.binding.add_symbol(name, address)
    arguments = (FOREIGN_TYPES[letter] for letter in signature[1:])
    declared: Callable[..., Any] = numba.types.ExternalFunction(
        name, FOREIGN_TYPES[signature[0]](*arguments)
    )
    return declared


def _generate_fetch(typing: Any, array: Any, at: Any) -> Any:
    """The signature of `fetch`, and what writes its one instruction."""
    ir, byte = llvmlite.ir, llvmlite.ir.IntType(8).as_pointer()

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start = context.make_array(array)(context, builder, arguments[0]).data
        size = context.get_abi_sizeof(context.get_data_type(array.dtype))
        row = context.cast(builder, arguments[1], at, numba.types.intp)
        offset = builder.mul(row, context.get_constant(numba.types.intp, size))
        place = builder.gep(builder.bitcast(start, byte), [offset])
        # For reading, in all levels of the cache, data (LLVM's reference, llvm.prefetch).
        how = [ir.Constant(ir.IntType(32), number) for number in (0, 3, 1)]
        kind = ir.FunctionType(ir.VoidType(), [byte, *(number.type for number in how)])
        name = "llvm.prefetch.p0i8"
        builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [place, *how])
        return context.get_dummy_value()

    return numba.types.void(array, at), generate


def _fetch_nothing(array: Any, at: Any) -> None:
    """Without JIT there is no cache to speak of."""


# Ask for the memory of `array[at]` before it is needed; changes nothing, wherever that is. A table
# larger than the cache costs a miss of 50 to 100 ns a look-up, and a loop that branches on what it
# reads has one or two of them under way at most. A loop before it that only works out where each
# row will look, and asks, does not wait: a dozen are under way at once. Measured: the gate at
# 20,000 members 68 ns a packet without, 26 with; the flow table 178 and 104.
fetch: Any = _fetch_nothing if INTERPRETED else numba.extending.intrinsic(_generate_fetch)


def _place_in(context: Any, builder: Any, array: Any, value: Any, at: Any) -> Any:
    """The address of a byte of an array."""
    return builder.gep(context.make_array(array)(context, builder, value).data, [at])


def _number(context: Any, builder: Any, signature: Any, arguments: Any, which: int) -> Any:
    """An argument as 64 bits."""
    return context.cast(builder, arguments[which], signature.args[which], numba.types.intp)


def _generate_move(typing: Any, source: Any, start: Any, target: Any, at: Any, length: Any) -> Any:
    """The signature of `move`, and what writes its one call."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, to, size = (_number(context, builder, signature, arguments, n) for n in (1, 3, 4))
        taken = _place_in(context, builder, source, arguments[0], first)
        put = _place_in(context, builder, target, arguments[2], to)
        cgutils.raw_memmove(builder, put, taken, size, 1)
        return context.get_dummy_value()

    return numba.types.void(source, start, target, at, length), generate


def _generate_wipe(typing: Any, target: Any, at: Any, length: Any) -> Any:
    """The signature of `wipe`, and what writes its one call."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, size = (_number(context, builder, signature, arguments, n) for n in (1, 2))
        put = _place_in(context, builder, target, arguments[0], first)
        cgutils.memset(builder, put, size, 0)
        return context.get_dummy_value()

    return numba.types.void(target, at, length), generate


def _move_by_index(
    source: np.ndarray, start: int, target: np.ndarray, at: int, length: int
) -> None:
    if start < at:
        for i in range(length - 1, -1, -1):
            target[at + i] = source[start + i]
    else:
        for i in range(length):
            target[at + i] = source[start + i]


def _wipe_by_index(target: np.ndarray, at: int, length: int) -> None:
    for i in range(length):
        target[at + i] = 0


# Bytes of uint8 arrays, moved or set to 0 as the C library does it: a loop whose indexes could be
# negative is not made into that, and takes 0.8 ns a byte. `length` is not negative. Where indexes
# are to be checked there are the loops.
CHECKED = INTERPRETED or bool(getattr(config, "BOUNDSCHECK", 0))
move: Any = primitive(_move_by_index) if CHECKED else numba.extending.intrinsic(_generate_move)
wipe: Any = primitive(_wipe_by_index) if CHECKED else numba.extending.intrinsic(_generate_wipe)
