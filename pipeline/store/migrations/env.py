"""Run by Alembic: revisions go through the connection, and the transaction, that it was given."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
