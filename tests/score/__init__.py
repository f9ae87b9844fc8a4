"""Tests of the score stage."""
