"""Drives the path: replay, the owner of a state, jobs, and the commands that ask it."""
