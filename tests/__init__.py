"""The tests; the folder mirrors `pipeline/`."""
