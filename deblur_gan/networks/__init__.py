"""The generators and the critics, as Keras functional graphs."""

from deblur_gan.networks.architectures import (
    ARCHITECTURES,
    Clip,
    Conv2DTranspose,
    InstanceNormalization,
    ReflectionPadding2D,
    critic_model,
    generator_model,
    residual_block,
    widened_weights,
)

__all__ = [
    "ARCHITECTURES",
    "Clip",
    "Conv2DTranspose",
    "InstanceNormalization",
    "ReflectionPadding2D",
    "critic_model",
    "generator_model",
    "residual_block",
    "widened_weights",
]
