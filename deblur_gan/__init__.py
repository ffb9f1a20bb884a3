"""DeblurGAN for Keras: blind motion deblurring with a conditional Wasserstein GAN.

The public names load on first use, and Keras with those that need it: importing the package starts nothing.
"""

import importlib
from pathlib import Path

import wrapt

__version__ = "0.1.0"

_ROOMS = {
    "DeblurGAN": "gan",
    "TrainingSet": "training_set",
    "critic_model": "networks",
    "deblur": "restoration",
    "export_generator": "export",
    "find_pairs": "pairs",
    "generator_model": "networks",
    "load_critic": "weights",
    "load_generator": "weights",
    "read_photograph": "photographs",
    "restore": "inputs",
    "save_critic": "weights",
    "save_generator": "weights",
    "save_pytorch": "weights",
    "write_photograph": "photographs",
}

__all__ = [*_ROOMS, "shipped_generator"]


def shipped_generator():
    """The trained generator that comes with the package.

    Returns:
        Path of `generator.h5`: inside an installed package, in `weights/` beside it in a clone.
    """
    package = Path(__file__).resolve().parent
    installed = package / "shipped" / "generator.h5"
    return installed if installed.exists() else package.parent / "weights" / "generator.h5"


def __getattr__(name):
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(f"deblur_gan.{_ROOMS[name]}"), name)
    return globals()[name]


def __dir__():
    return sorted({*globals(), *__all__})


@wrapt.when_imported("keras")
def _register_layers(_):
    """Makes the layers of our networks known to `keras.models.load_model`, whichever is imported first."""
    importlib.import_module("deblur_gan.networks")
