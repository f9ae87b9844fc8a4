"""The nouns: batches, columns, words, faults, money, identifiers."""
