"""Sealed hot state: what was saved comes back, nothing of it lies open, and no change is missed."""

import stat

import numpy as np
import pytest

from pipeline.model.identifiers import Keys
from pipeline.store import hot
from pipeline.store.hot import HotState
from pipeline.store.sealing import SealingError

KEYS = Keys.from_seed("hot")
ADDRESS = 0x20010DB8_00771234
ARRAYS = {
    "node_hi": np.full(50, ADDRESS, np.uint64),
    "rows": np.arange(70, dtype=np.int64).reshape(2, 35),
    "none": np.zeros(0, np.int32),
}


@pytest.fixture(params=[hot.CHUNK_BYTES, 100])
def state(tmp_path, request, monkeypatch):
    monkeypatch.setattr(hot, "CHUNK_BYTES", request.param)
    return HotState(tmp_path / "hot", KEYS)


def test_what_was_saved_comes_back(state):
    state.save("visits-1", ARRAYS)
    found = HotState(state.folder, KEYS).load("visits-1")
    assert found.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        assert found[name].dtype == values.dtype
        assert np.array_equal(found[name], values)
    assert state.load("visits-2") is None


def test_nothing_of_it_lies_open(state):
    state.save("visits-1", ARRAYS)
    (path,) = state.folder.iterdir()
    raw = path.read_bytes()
    for order in ("little", "big"):
        assert ADDRESS.to_bytes(8, order) not in raw
    assert b"node_hi" not in raw
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("harm", ["flip", "cut", "name", "key", "length", "empty"])
def test_another_content_does_not_open(state, harm):
    state.save("visits-1", ARRAYS)
    (path,) = state.folder.iterdir()
    raw, name, keys = bytearray(path.read_bytes()), "visits-1", KEYS
    match harm:
        case "flip":
            raw[len(raw) // 2] ^= 1
        case "cut":
            del raw[-60:]
        case "length":
            raw[0] ^= 1
        case "empty":
            raw = bytearray()
        case "name":
            name = "visits-2"
        case "key":
            keys = Keys.from_seed("another")
    path.write_bytes(raw)
    path.rename(state.folder / f"{name}.sealed")
    with pytest.raises(SealingError, match=name):
        HotState(state.folder, keys).load(name)


def test_what_is_over_goes(state):
    for name in ("visits-1", "visits-2", "seed"):
        state.save(name, ARRAYS)
    (state.folder / "visits-0.npz").write_bytes(b"left open by an earlier version")
    state.keep_only({"visits-2"})
    assert [path.name for path in state.folder.iterdir()] == ["visits-2.sealed"]
