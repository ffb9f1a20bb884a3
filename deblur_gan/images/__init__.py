"""Image files in and out, their metadata, and the value range of the networks."""
