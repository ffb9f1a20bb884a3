"""Blur that a moving camera makes, and pairs made with it."""
