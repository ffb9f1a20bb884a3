"""A page that restores photographs in a browser."""
