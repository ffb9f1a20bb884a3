"""Weight files of the authors' PyTorch code."""

from deblur_gan.exporting.h5 import load
from deblur_gan.weights import save_pytorch

__all__ = ["load", "write"]


def write(generator, path, precision, facts, dropout=True):
    """Writes a `state_dict`; see `save_pytorch`."""
    save_pytorch(generator, path, dropout)
