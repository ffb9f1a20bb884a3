"""Scores of restored photographs, and the report on them."""
