"""How the book's tables came to be what they are, one revision a file (Alembic)."""
