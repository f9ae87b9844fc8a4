"""Decisions become commands for the DPI box, RADIUS and invitations. Nothing is here yet."""
