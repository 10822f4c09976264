"""The tests: a folder for each kind, and ``support`` for what they share."""
