"""The generators and the critics, as Keras functional graphs; importing it registers their layers with Keras."""

from deblur_gan.networks.critics import critic_model
from deblur_gan.networks.generators import generator_model, residual_block
from deblur_gan.networks.layers import Clip, InstanceNormalization, ReflectionPadding2D, TransposedConv3x3Stride2
from deblur_gan.networks.widening import widened_weights

__all__ = [
    "Clip",
    "InstanceNormalization",
    "ReflectionPadding2D",
    "TransposedConv3x3Stride2",
    "critic_model",
    "generator_model",
    "residual_block",
    "widened_weights",
]
