"""Measurements: programs run by hand that print figures, and the traffic they measure with."""
