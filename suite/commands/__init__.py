"""The commands, by group: each parses its options, calls one function and prints."""
