"""Weight files: read, written and identified."""

from deblur_gan.weights.hdf5 import BadWeights
from deblur_gan.weights.identify import require_bounded
from deblur_gan.weights.load import describe, load_critic, load_generator
from deblur_gan.weights.save import save_critic, save_generator, save_pytorch

__all__ = [
    "BadWeights",
    "describe",
    "load_critic",
    "load_generator",
    "require_bounded",
    "save_critic",
    "save_generator",
    "save_pytorch",
]
