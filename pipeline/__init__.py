"""Mirrorpoint: what a DPI box sees and what partner shops confirm become loyalty points."""

__version__ = "0.1.0"
