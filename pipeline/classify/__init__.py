"""Packets become sessions, of those whose payload may be read."""
