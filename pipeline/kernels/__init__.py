"""Compiled primitives that more than one stage uses."""
