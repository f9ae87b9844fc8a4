"""The HTTP side. Nothing is here yet."""
