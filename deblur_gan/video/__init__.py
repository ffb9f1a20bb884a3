"""Video files: decoded, encoded, restored frame by frame."""

VIDEO_EXTENSIONS = (".3gp", ".avi", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm")
