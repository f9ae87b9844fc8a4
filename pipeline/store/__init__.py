"""The journal, the ClickHouse store, the book and the keys."""
