"""The files and the hash of a journal, read and computed once more by plain Python."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.model.batches import STREAMS
from pipeline.model.columns import TextColumn, columns_of
from pipeline.store.journal import Journal
from tests.naive import journal as naive
from tests.naive.rowhash import row_hashes
from tests.store.making import KEYS, cuts_of, some_rows

ROWS = {name: some_rows(kind, 6) for name, kind in STREAMS.items()}


def listed(values) -> list:
    """A column's values as Arrow gives them to Python."""
    if isinstance(values, TextColumn):
        return [values[i] for i in range(len(values))]
    return [bytes(v) if values.dtype.kind == "V" else int(v) for v in values]


def test_the_files_are_as_described(tmp_path):
    with Journal(tmp_path, KEYS) as journal:
        for stream, batch in ROWS.items():
            for part in cuts_of(batch, [1, 4]):
                journal.append(stream, part)
                journal.sync()
        journal.seal()
        for stream, batch in ROWS.items():
            journal.append(stream, batch)
    for stream, batch in ROWS.items():
        rows = naive.read_stream(tmp_path, stream)
        assert [row["_row_hash"] for row in rows] == 2 * row_hashes(batch, KEYS.audit)
        plain = [c.name for c in columns_of(STREAMS[stream]) if not (c.local or c.sealed)]
        hidden = [c.name for c in columns_of(STREAMS[stream]) if c.local or c.sealed]
        for name in plain:
            assert [row[name] for row in rows] == 2 * listed(getattr(batch, name)), name
        assert not [name for name in hidden if name in rows[0]]


def test_the_checksum_is_crc32c():
    """The check value of RFC 3720, appendix B.4: 32 bytes of zeros, and of ones."""
    assert naive.crc32c(bytes(32)) == 0x8A9136AA
    assert naive.crc32c(b"\xff" * 32) == 0x62A8AB43


@settings(max_examples=15)
@given(
    streams=st.sets(st.sampled_from(list(STREAMS)), min_size=1, max_size=2),
    places=st.lists(st.integers(0, 6), max_size=3),
    seal=st.booleans(),
)
def test_the_hash_is_as_described(tmp_path_factory, streams, places, seal):
    with Journal(tmp_path_factory.mktemp("twin"), KEYS) as journal:
        for stream in streams:
            for part in cuts_of(ROWS[stream], places):
                journal.append(stream, part)
                journal.sync()
            if seal:
                journal.seal()
        expected = {name: ROWS[name] for name in STREAMS if name in streams}
        assert journal.hash() == naive.journal_hash(expected, KEYS.audit)
        for stream in streams:
            hashes = row_hashes(ROWS[stream], KEYS.audit)
            found = journal.segments(stream)[0]
            assert (found.rows, found.hash_xor, found.hash_sum) == naive.digest_of(hashes)
