"""Write `docs/schema.md` anew: `python -m tests.store.write_schema_page`."""

from pipeline.store.clickhouse_schema import schema_page
from tests.need import REPOSITORY

if __name__ == "__main__":
    (REPOSITORY / "docs" / "schema.md").write_text(schema_page())
