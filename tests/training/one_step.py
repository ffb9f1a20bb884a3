"""One training step from fixed weights and images, on the backend of KERAS_BACKEND: OUT.npz [compiled] [frozen]"""

import sys

import keras
import numpy as np

from deblur_gan.networks import critic_model, generator_model
from deblur_gan.training.gan import DeblurGAN
from deblur_gan.training.losses import PerceptualLoss

CRITIC_UPDATES, RATE, GRID_WEIGHT = 3, 0.05, 1e-3
EPSILON = np.array([0.2, 0.7], "float32").reshape(2, 1, 1, 1)


def networks():
    """Builds generator, critic and perceptual loss with the same weights wherever it is called; no dropout."""
    generator = generator_model("meudec", ngf=4, n_blocks=1, dropout=0.0)
    critic = critic_model("paper", ndf=4, image_shape=(None, None, 3))
    perceptual_loss = PerceptualLoss(weights=None)
    rng = np.random.default_rng(0)
    for network in (generator, critic, perceptual_loss.features):
        network.set_weights(
            [
                weight + rng.normal(0, 0.05, weight.shape)
                if weight.ndim < 4
                else rng.normal(0, (2 / np.prod(weight.shape[:3])) ** 0.5, weight.shape)
                for weight in network.get_weights()
            ]
        )
    return generator, critic, perceptual_loss


def images():
    blurred, sharp = np.random.default_rng(1).uniform(-1, 1, (2, 2, 32, 32, 3)).astype("float32")
    sharp[0] /= 100  # flat, so that the grid loss counts it
    return blurred, sharp


class WithEpsilon(DeblurGAN):
    def draw_epsilon(self, images, seed):
        return keras.ops.convert_to_tensor(EPSILON)


def main(path, *how):
    generator, critic, perceptual_loss = networks()
    for layer in generator.layers:
        layer.trainable = not ("frozen" in how and isinstance(layer, keras.layers.BatchNormalization))
    before = generator.get_weights() + critic.get_weights()
    gan = WithEpsilon(
        generator, critic, perceptual_loss, critic_updates=CRITIC_UPDATES, pixel_weight=0.5, grid_weight=GRID_WEIGHT
    )
    jit_compile = True if "compiled" in how else "auto"
    gan.compile(keras.optimizers.SGD(RATE), keras.optimizers.SGD(RATE), jit_compile=jit_compile)
    result = gan.train_on_batch(*images(), return_dict=True)
    for number, (old, new) in enumerate(zip(before, generator.get_weights() + critic.get_weights(), strict=True)):
        result[f"{number}_weight"], result[f"{number}_change"] = new, new - old
    np.savez(path, **result)


if __name__ == "__main__":
    main(*sys.argv[1:])
