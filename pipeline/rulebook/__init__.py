"""Rules: TOML files, read and checked as one, with every mistake named at its place."""
