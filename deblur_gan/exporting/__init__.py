"""Generators in the formats of other engines."""
