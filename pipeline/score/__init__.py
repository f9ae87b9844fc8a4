"""Visits become decisions, purchase messages become targets of points; every row says why."""
