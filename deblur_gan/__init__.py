"""DeblurGAN for Keras: blind motion deblurring with a conditional Wasserstein GAN."""

__version__ = "0.1.0"

from deblur_gan.networks import critic_model, generator_model
from deblur_gan.restoration import deblur
from deblur_gan.weights import load_critic, load_generator, save_critic, save_generator

__all__ = [
    "critic_model",
    "deblur",
    "generator_model",
    "load_critic",
    "load_generator",
    "save_critic",
    "save_generator",
]
