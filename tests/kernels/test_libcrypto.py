"""Which library stands behind the symbols, and that nothing is taken that is not what it says."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from pipeline.kernels import libcrypto
from tests.need import REPOSITORY

pytestmark = pytest.mark.slow  # processes of their own


def test_a_library_that_is_missing_or_another_is_not_taken():
    assert libcrypto.load(()) is None
    assert libcrypto.load(("libnowhere.so.9",)) is None
    assert libcrypto.load(("libc.so.6",)) is None  # it is there, but has none of the functions


def test_the_first_that_is_right_is_taken():
    if libcrypto.LIBRARY is None:
        pytest.skip("no libcrypto here")
    assert libcrypto.load(("libnowhere.so.9", *libcrypto.SONAMES)) is not None


class Wrong:
    """A library whose hash does nothing and whose cipher copies."""

    SHA256_Transform = staticmethod(lambda state, block: None)
    EVP_CIPHER_CTX_new = staticmethod(lambda: 1)
    EVP_CIPHER_CTX_free = staticmethod(lambda context: None)
    EVP_aes_128_ecb = staticmethod(lambda: 2)
    EVP_EncryptInit_ex = staticmethod(lambda *arguments: 1)
    EVP_EncryptUpdate = staticmethod(lambda *arguments: 1)


class Partly:
    """The library that is here, but for one of its functions."""

    def __init__(self, name, function):
        self.name, self.function = name, function

    def __getattr__(self, name):
        return self.function if name == self.name else getattr(libcrypto.LIBRARY, name)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("EVP_CIPHER_CTX_new", 0),  # no memory
        ("EVP_EncryptUpdate", 1),  # writes nothing
        ("EVP_EncryptUpdate", 0),
        ("EVP_DecryptFinal_ex", 1),  # takes any tag
        ("EVP_DecryptFinal_ex", 0),  # takes none
        ("SHA256_Transform", None),
    ],
)
def test_a_library_that_counts_wrong_is_not_taken(name, answer):
    assert not libcrypto.is_right(Wrong)
    if libcrypto.LIBRARY is not None:
        assert libcrypto.is_right(libcrypto.LIBRARY)
        assert not libcrypto.is_right(Partly(name, lambda *arguments: answer))


def test_each_desk_has_contexts_of_its_own():
    if libcrypto.LIBRARY is None:
        pytest.skip("no libcrypto here")
    desk = libcrypto.CipherDesk()
    assert desk.records["native"][0] == 1
    again = libcrypto.CipherDesk()
    contexts = [int(d.records[name][0]) for d in (desk, again) for name in ("gcm", "ecb")]
    assert len(set(contexts)) == 4
    assert 0 not in contexts
    other = libcrypto.CipherDesk(native=False)
    assert not other.records["native"][0]
    assert not other.records["gcm"][0]


def test_what_is_called_back_answers_no_rather_than_raise():
    out = ctypes.create_string_buffer(64)
    key, text = ctypes.create_string_buffer(28), ctypes.create_string_buffer(20)
    places = [ctypes.addressof(b) for b in (key, text, out)]
    assert (
        libcrypto.CALLED_BACK(libcrypto.OP_OPEN, places[0], places[1], 20, places[1], 0, places[2])
        == 0
    )


WITHOUT = """
import ctypes, sys
sys.path.insert(0, {root!r})
class Missing(ctypes.CDLL):
    def __init__(self, name, *rest, **more):
        if name and "crypto" in str(name):
            raise OSError(name)
        super().__init__(name, *rest, **more)
ctypes.CDLL = Missing
from pipeline.kernels import libcrypto
assert libcrypto.LIBRARY is None
from tests.classify import test_datagrams as stories
for story in (stories.halves(), [b"".join(stories.halves())], [stories.halves()[1]]):
    print(stories.named(story))
"""


def test_without_a_library_the_same_names_are_found():
    """In a process of its own, with the kernels that were compiled where there was one."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT.format(root=str(REPOSITORY))],
        capture_output=True, text=True, check=False, cwd=REPOSITORY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert [line.count("big.example") for line in lines] == [1, 1, 0]
