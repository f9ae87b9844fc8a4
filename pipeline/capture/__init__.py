"""Bytes become batches."""
