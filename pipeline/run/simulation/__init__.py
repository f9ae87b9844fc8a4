"""The simulation of a book: a story, a ledger of coins, and a driver that compares (README.md)."""
