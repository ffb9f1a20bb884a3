"""One training step of four images on one or two virtual CPU devices: two_devices.py N OUT.npz"""

import contextlib
import os
import sys

n_devices, path = int(sys.argv[1]), sys.argv[2]
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={n_devices}"

import keras  # noqa: E402
import numpy as np  # noqa: E402

from deblur_gan.gan import DeblurGAN  # noqa: E402
from deblur_gan.losses import PerceptualLoss  # noqa: E402
from deblur_gan.networks import critic_model, generator_model  # noqa: E402

scope = contextlib.nullcontext()
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * n_devices)
    if n_devices > 1:
        scope = tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(n_devices)]).scope()
else:
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    assert len(keras.distribution.list_devices()) == n_devices

with scope:
    keras.utils.set_random_seed(0)
    generator = generator_model("paper", ngf=4, n_blocks=1)
    for layer in generator.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    critic = critic_model("paper", ndf=4, image_shape=(None, None, 3))
    gan = DeblurGAN(generator, critic, PerceptualLoss(weights=None), critic_updates=2, seed=1)
    gan.compile(keras.optimizers.SGD(0.05), keras.optimizers.SGD(0.05))
before = generator.get_weights() + critic.get_weights()
blurred, sharp = np.random.default_rng(0).uniform(-1, 1, (2, 4, 32, 32, 3)).astype("float32")
history = gan.fit(blurred, sharp, batch_size=4, verbose=0)
result = {name: values[0] for name, values in history.history.items()}
for number, (old, new) in enumerate(zip(before, generator.get_weights() + critic.get_weights(), strict=True)):
    result[f"{number}_change"] = new - old
np.savez(path, **result)
