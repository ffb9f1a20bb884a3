"""Weight files: read, written and identified."""

from deblur_gan.weights.weight_files import (
    BadWeights,
    describe,
    load_critic,
    load_generator,
    require_bounded,
    save_critic,
    save_generator,
    save_pytorch,
)

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
