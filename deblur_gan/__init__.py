"""DeblurGAN for Keras: blind motion deblurring with a conditional Wasserstein GAN.

The public names load on first use, and Keras with those that need it: importing the package starts nothing.
"""

from pathlib import Path

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, _names = lazy_loader.attach(
    __name__,
    submod_attrs={
        "api": ["restore"],
        "data": ["TrainingSet", "find_pairs"],
        "exporting.export": ["export_generator"],
        "images.photographs": ["read_photograph", "write_photograph"],
        "networks": ["critic_model", "generator_model"],
        "restoring.deblur": ["deblur"],
        "training.gan": ["DeblurGAN"],
        "weights": ["load_critic", "load_generator", "save_critic", "save_generator", "save_pytorch"],
    },
)
__all__ = [*_names, "shipped_generator"]


def shipped_generator():
    """Returns the path of the trained generator that comes with the package.

    Returns:
        Path of `generator.h5`: inside an installed package, or in `weights/` of a clone.

    Example:
        >>> shipped_generator().name
        'generator.h5'
    """
    package = Path(__file__).resolve().parent
    installed = package / "shipped" / "generator.h5"
    return installed if installed.exists() else package.parent / "weights" / "generator.h5"
