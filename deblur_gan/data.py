"""The address that pairs and training sets had before they got rooms of their own, for code that imports them here."""

from deblur_gan.pairs import find_pairs
from deblur_gan.training_set import TrainingSet

__all__ = ["TrainingSet", "find_pairs"]
