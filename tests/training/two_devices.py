"""Training on two virtual CPU devices, and one step of the same images on one: two_devices.py OUT.npz"""

import os
import random
import sys

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"

import keras  # noqa: E402
import numpy as np  # noqa: E402

from deblur_gan.networks import critic_model, generator_model
from deblur_gan.training import gradients  # noqa: E402
from deblur_gan.training.gan import DeblurGAN

STEPS, EPOCHS = 4, 2

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def squares(sharp, restored):
    return keras.ops.mean(keras.ops.square(sharp - restored))


def build():
    random.seed(0)  # Keras draws its seeds from here
    generator = generator_model("paper", ngf=2, n_blocks=1, dropout=0.0)
    critic = critic_model("paper", ndf=2, image_shape=(None, None, 3))
    gan = DeblurGAN(generator, critic, squares, critic_updates=1, pixel_weight=1.0, ema=0.5, seed=1)
    gan.compile(keras.optimizers.SGD(0.05), keras.optimizers.SGD(0.05))
    return gan


def one_step(gan):
    """Returns the losses and the change of every weight and average."""
    models = gan.generator, gan.critic, gan.averaged_generator
    before = [weight for model in models for weight in model.get_weights()]
    blurred, sharp = np.random.default_rng(0).uniform(-1, 1, (2, 4, 16, 16, 3)).astype("float32")
    history = gan.fit(blurred, sharp, batch_size=4, shuffle=False, verbose=0)
    after = [weight for model in models for weight in model.get_weights()]
    changes = {f"{number}_change": new - old for number, (old, new) in enumerate(zip(before, after, strict=True))}
    return {name: values[0] for name, values in history.history.items()} | changes


def train_on_a_generator(gan):
    """Returns the pixel loss of each epoch for a generator that returns its input, if batch k is off by 2^-k."""
    head = gan.generator.get_layer("head_conv")
    head.set_weights([np.zeros_like(weight) for weight in head.get_weights()])
    gan.optimizer.learning_rate = 0.0
    blurred = np.zeros((4, 16, 16, 3), "float32")
    batches = ((blurred, blurred + 2.0**-number) for number in range(EPOCHS * STEPS))
    before = int(gan.generator_optimizer.iterations.numpy())
    history = gan.fit(batches, steps_per_epoch=STEPS, epochs=EPOCHS, shuffle=False, verbose=0)
    return {
        "seen": history.history["pixel_loss"],
        "left": len(list(batches)),
        "steps": int(gan.generator_optimizer.iterations.numpy()) - before,
    }


def main(path):
    result = {f"one_{name}": value for name, value in one_step(build()).items()}
    with gradients.devices(shared=True, building=True) as n_devices:
        assert n_devices == 2
        gan = build()
    if keras.backend.backend() == "tensorflow":
        assert gan.distribute_strategy.num_replicas_in_sync == 2
    with gradients.devices(shared=True):
        result |= {f"two_{name}": value for name, value in one_step(gan).items()}
        np.savez(path, **result, **train_on_a_generator(gan))


if __name__ == "__main__":
    main(sys.argv[1])
