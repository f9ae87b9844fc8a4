"""The C library that does the arithmetic of QUIC's Initial packets: its functions, called by name.

Kernels call C through symbols: a pointer inside compiled code could not be kept between runs. What
stands behind the symbols is decided here, once, when the process starts: libcrypto's functions
where the library is found, has all of them and does a sum with a known answer right (OpenSSL 1.1
and later, LibreSSL); otherwise only `fall_back`, which does the same with `cryptography`, some four
times slower. Either way the symbols are the same, so compiled kernels are, and the names are our
own, so that they meet no other copy of the library in the process.

The library is asked for by soname: the dynamic linker gives the one that Python's `hashlib` has
already loaded, if that is its soname, else the system's.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.kernels.compile import foreign, records

SONAMES = ("libcrypto.so.3", "libcrypto.so.1.1", "libcrypto.so")
PREFIX = "mirrorpoint_"
KEY_BYTES, NONCE_BYTES, TAG_BYTES, HASH_BYTES = 16, 12, 16, 32
SET_TAG = 0x11  # EVP_CTRL_AEAD_SET_TAG
SHA256_STATE_BYTES = 112  # eight words of hash, then what `SHA256_Transform` does not touch
PLAIN_BYTES = 1 << 16

CIPHER = np.dtype(
    [
        ("native", "i8"), ("gcm", "i8"), ("ecb", "i8"), ("length", "i8"),
        ("state", "u4", (SHA256_STATE_BYTES // 4,)), ("inner", "u4", (8,)), ("outer", "u4", (8,)),
        ("block", "u1", (64,)), ("secret", "u1", (HASH_BYTES,)), ("keys", "u1", (48,)),
        ("nonce", "u1", (16,)), ("sample", "u1", (16,)), ("mask", "u1", (16,)),
        ("header", "u1", (PLAIN_BYTES,)),
    ]
)  # fmt: skip
"""The desk of whoever opens packets: contexts of the library as addresses (0 without it), room for
a hash, a key and a header. Not part of any snapshot: an address means nothing elsewhere."""

# Signatures, as addresses and numbers: name, result, arguments. `i` is an int, `p` an address.
FUNCTIONS = {
    "SHA256_Transform": "vpp",
    "EVP_EncryptInit_ex": "ippppp",
    "EVP_EncryptUpdate": "ippppi",
    "EVP_DecryptInit_ex": "ippppp",
    "EVP_DecryptUpdate": "ippppi",
    "EVP_DecryptFinal_ex": "ippp",
    "EVP_CIPHER_CTX_ctrl": "ipiip",
}
MADE_ONCE = {
    "EVP_CIPHER_CTX_new": "p",
    "EVP_CIPHER_CTX_free": "vp",
    "EVP_CIPHER_CTX_set_padding": "ipi",
    "EVP_aes_128_gcm": "p",
    "EVP_aes_128_ecb": "p",
}
FALL_BACK = "iippipip"
C_TYPES: dict[str, Any] = {"i": ctypes.c_int32, "p": ctypes.c_void_p, "v": None}
OP_HMAC, OP_MASK, OP_OPEN = 1, 2, 3


def load(sonames: tuple[str, ...] = SONAMES) -> ctypes.CDLL | None:
    """The first library that has every function and passes `is_right`; None where there is none."""
    for soname in sonames:
        try:
            library = ctypes.CDLL(soname)
            for name, signature in (FUNCTIONS | MADE_ONCE).items():
                function = getattr(library, name)
                function.restype = C_TYPES[signature[0]]
                function.argtypes = [C_TYPES[letter] for letter in signature[1:]]
        except (OSError, AttributeError):
            continue
        if is_right(library):
            return library
    return None


def is_right(library: Any) -> bool:
    """Does a library hash, encrypt and tell a true tag from a false one as FIPS 180-4, 197 and NIST
    SP 800-38D (the first example of its authors) say?
    """
    state = np.zeros(SHA256_STATE_BYTES // 4, np.uint32)
    state[:8] = SHA256_START
    library.SHA256_Transform(state.ctypes.data, b"abc\x80" + bytes(59) + b"\x18")
    if not state[:8].astype(">u4").tobytes().hex().startswith("ba7816bf8f01cfea"):
        return False
    context = library.EVP_CIPHER_CTX_new()
    if not context:
        return False
    try:
        return _encrypts(library, context) and _tells_tags(library, context)
    finally:
        library.EVP_CIPHER_CTX_free(context)


def _encrypts(library: Any, context: int) -> bool:
    out, size = ctypes.create_string_buffer(32), ctypes.c_int32()
    started = library.EVP_EncryptInit_ex(
        context, library.EVP_aes_128_ecb(), None, bytes(range(16)), None
    )
    plain = bytes.fromhex("00112233445566778899aabbccddeeff")
    done = library.EVP_EncryptUpdate(context, out, ctypes.addressof(size), plain, 16)
    return started == done == 1 and out.raw[:16].hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"


def _tells_tags(library: Any, context: int) -> bool:
    out, size = ctypes.create_string_buffer(32), ctypes.c_int32()
    told = []
    for tag in ("58e2fccefa7e3061367f1d57a4e7455a", "59e2fccefa7e3061367f1d57a4e7455a"):
        library.EVP_DecryptInit_ex(
            context, library.EVP_aes_128_gcm(), None, bytes(16), bytes(NONCE_BYTES)
        )
        library.EVP_CIPHER_CTX_ctrl(context, SET_TAG, TAG_BYTES, bytes.fromhex(tag))
        told.append(library.EVP_DecryptFinal_ex(context, out, ctypes.addressof(size)) == 1)
    return told == [True, False]


SHA256_START = (
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
)  # fmt: skip


def _fall_back(op: int, key: int, data: int, size: int, other: int, length: int, out: int) -> int:
    """What kernels ask of `cryptography`; addresses are those of their memory.

    OP_HMAC: the HMAC-SHA256 of `data` under `key` (32 bytes of which `length` count). OP_MASK: the
    block `data` under AES. OP_OPEN: `data` of `size` with its tag, under `key` (and behind it the
    nonce), and `other` of `length` as associated data; 0 where the tag is another.
    """
    # Loaded here: where there is a library it would only make every start slower.
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives import hashes, hmac
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    given = ctypes.string_at(data, size)
    if op == OP_HMAC:
        mac = hmac.HMAC(ctypes.string_at(key, length), hashes.SHA256())
        mac.update(given)
        ctypes.memmove(out, mac.finalize(), HASH_BYTES)
    elif op == OP_MASK:
        ecb = Cipher(algorithms.AES(ctypes.string_at(key, KEY_BYTES)), modes.ECB()).encryptor()
        ctypes.memmove(out, ecb.update(given), KEY_BYTES)
    else:
        nonce = ctypes.string_at(key + KEY_BYTES, NONCE_BYTES)
        try:
            plain = AESGCM(ctypes.string_at(key, KEY_BYTES)).decrypt(
                nonce, given, ctypes.string_at(other, length)
            )
        except InvalidTag:
            return 0
        ctypes.memmove(out, plain, len(plain))
    return 1


CALLED_BACK = ctypes.CFUNCTYPE(ctypes.c_int32, *(C_TYPES[letter] for letter in FALL_BACK[1:]))(
    _fall_back
)
LIBRARY = load()


def _symbol(name: str, signature: str, function: Any) -> Callable[..., Any]:
    address = int(ctypes.cast(function, ctypes.c_void_p).value or 0)
    return foreign(PREFIX + name, signature, function, address)


def _library_symbol(name: str) -> Callable[..., Any]:
    # Without a library the symbol has to stand for something; nobody calls it then.
    return _symbol(name, FUNCTIONS[name], getattr(LIBRARY, name) if LIBRARY else CALLED_BACK)


sha256_transform = _library_symbol("SHA256_Transform")
encrypt_init = _library_symbol("EVP_EncryptInit_ex")
encrypt_update = _library_symbol("EVP_EncryptUpdate")
decrypt_init = _library_symbol("EVP_DecryptInit_ex")
decrypt_update = _library_symbol("EVP_DecryptUpdate")
decrypt_final = _library_symbol("EVP_DecryptFinal_ex")
context_control = _library_symbol("EVP_CIPHER_CTX_ctrl")
fall_back = _symbol("fall_back", FALL_BACK, CALLED_BACK)


class CipherDesk:
    """One CIPHER and the contexts behind it, which are given back when this is forgotten.

    For one thread at a time. `native` asks for the library; it is not used where it is missing.
    """

    def __init__(self, native: bool = True) -> None:
        self.records = records(CIPHER, 1)
        if not native or LIBRARY is None:
            return
        for name, cipher in (("gcm", LIBRARY.EVP_aes_128_gcm), ("ecb", LIBRARY.EVP_aes_128_ecb)):
            context = LIBRARY.EVP_CIPHER_CTX_new()
            assert context, "no memory for a cipher context"
            weakref.finalize(self, LIBRARY.EVP_CIPHER_CTX_free, context)
            start = LIBRARY.EVP_DecryptInit_ex if name == "gcm" else LIBRARY.EVP_EncryptInit_ex
            assert start(context, cipher(), None, None, None) == 1
            LIBRARY.EVP_CIPHER_CTX_set_padding(context, 0)
            self.records[name] = context
        self.records["native"] = 1
