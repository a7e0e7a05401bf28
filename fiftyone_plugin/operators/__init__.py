"""The operators, one subject a file."""
