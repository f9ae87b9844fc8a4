"""Forged captures, read by us and by Wireshark's dissectors."""
