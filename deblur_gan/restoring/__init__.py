"""From a blurred photograph to a restored one, and from files to files."""
