"""The book of points as a pure state machine: state and request in, transfers out."""
