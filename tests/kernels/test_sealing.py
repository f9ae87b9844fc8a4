"""Keys and seals of QUIC's Initials: the RFCs' examples, and both ways of computing them."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels import sealing
from pipeline.kernels.compile import routine
from pipeline.kernels.libcrypto import LIBRARY, PLAIN_BYTES, CipherDesk
from tests.forge import quic
from tests.naive.quic import SALTS, client_keys

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")  # without JIT
DCID = bytes.fromhex("8394c8f03e515708")
# RFC 9001, A.1, and RFC 9369, A.1.
KEYS = {
    sealing.V1: "1f369613dd76d5467730efcbe3b1a22dfa044b2f42a3fd3b46fb255c9f50449e04a0e810283a1e9933adedd2",
    sealing.V2: "8b1a0bc121284290a29e0971b5cd045d91f73e2351d8fa91660e909f45b95e15235d6f45a6b19cbcb0294ba9",
}
WAYS = [pytest.param(True, id="libcrypto", marks=pytest.mark.skipif(LIBRARY is None, reason="no libcrypto here")),
        pytest.param(False, id="cryptography")]  # fmt: skip


@routine
def derive(ciphers, salt, ids, at, length):
    sealing.derive_keys(ciphers[0], salt, ids, at, length)


@routine
def mask(ciphers, data, at):
    sealing.make_mask(ciphers[0], data, at)


@routine
def unseal(ciphers, header_length, number, data, start, stop, plain):
    return sealing.open_sealed(ciphers[0], header_length, number, data, start, stop, plain)


def array(raw: bytes) -> np.ndarray:
    return np.frombuffer(raw, np.uint8).copy()


def keys_of(native: bool, salt: int, dcid: bytes) -> bytes:
    desk = CipherDesk(native)
    derive(desk.records, salt, array(b"before" + dcid + b"after"), 6, len(dcid))
    return desk.records["keys"][0].tobytes()[: sealing.KEYS_BYTES]


@pytest.mark.parametrize("native", WAYS)
@pytest.mark.parametrize("salt", KEYS)
def test_the_keys_of_the_rfcs(native, salt):
    assert keys_of(native, salt, DCID).hex() == KEYS[salt]


@pytest.mark.parametrize("native", WAYS)
@pytest.mark.parametrize("salt", range(len(SALTS)))
@given(dcid=st.binary(max_size=20))
def test_keys_are_the_twins(native, salt, dcid):
    assert keys_of(native, salt, dcid) == b"".join(client_keys(list(SALTS)[salt], dcid))


@pytest.mark.parametrize("native", WAYS)
def test_the_mask_of_the_rfc(native):
    desk = CipherDesk(native)
    desk.records["keys"][0][:44] = array(bytes.fromhex(KEYS[sealing.V1]))
    mask(desk.records, array(bytes.fromhex("00d1b1c98dd7689fb8ec11d242b123dc9b")), 1)
    assert desk.records["mask"][0].tobytes()[:5].hex() == "437b9aec36"  # RFC 9001, A.2


@pytest.mark.parametrize("native", WAYS)
@given(
    plain=st.binary(max_size=300),
    header=st.binary(min_size=1, max_size=40),
    number=st.integers(0, 2**62 - 1),
    flip=st.integers(-1, 340),
    where=st.integers(0, 3),
)
def test_what_was_sealed_is_opened_and_what_was_changed_is_not(
    native, plain, header, number, flip, where
):
    keys = bytes.fromhex(KEYS[sealing.V1])
    nonce = (int.from_bytes(keys[16:28], "big") ^ number).to_bytes(12, "big")
    sealed = bytearray(AESGCM(keys[:16]).encrypt(nonce, plain, header))
    changed = 0 <= flip < len(sealed)
    if changed:
        sealed[flip] ^= 1 << where
    desk, out = CipherDesk(native), np.zeros(PLAIN_BYTES, np.uint8)
    desk.records["keys"][0][:44] = array(keys)
    desk.records["header"][0][: len(header)] = array(header)
    data = array(b"before" + bytes(sealed) + b"after")
    for again in range(2):
        good = unseal(desk.records, len(header), number + again, data, 6, 6 + len(sealed), out)
        assert bool(good) == (not changed and again == 0)
        if good:
            assert out[: len(plain)].tobytes() == plain


# RFC 9001, A.2, and RFC 9369, A.2: one hello, padded to 1,162 bytes, as packet 2.
HELLO = bytes.fromhex(
    "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e868"
    "04fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578"
    "616d706c652e636f6dff01000100000a00080006001d00170018001000070005"
    "04616c706e000500050100000000003300260024001d00209370b2c9caa47fba"
    "baf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b000302030400"
    "0d0010000e0403050306030203080408050806002d00020101001c0002400100"
    "3900320408ffffffffffffffff05048000ffff07048000ffff08011001048000"
    "75300901100f088394c8f03e51570806048000ffff"
)
SHOWN = {
    quic.V1: "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9b",
    quic.V2: "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485dd04de806071",
}


@pytest.mark.parametrize("version", SHOWN)
def test_the_forger_seals_as_the_rfcs_do(version):
    raw = quic.initial(HELLO, version=version, number=2, pad_to=1200).hex()
    assert len(raw) == 2400
    assert raw.startswith(SHOWN[version])
    assert version == quic.V2 or raw.endswith("e221af44860018ab0856972e194cd934")
