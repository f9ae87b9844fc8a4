"""Forged days: what the bundled case and the large tests are made by."""
