"""DeblurGAN for Keras: blind motion deblurring with a conditional Wasserstein GAN."""

from deblur_gan.networks import critic_model, generator_model

__version__ = "0.1.0"

__all__ = ["critic_model", "generator_model"]
