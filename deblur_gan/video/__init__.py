"""Video files: decoded, encoded, restored frame by frame."""
