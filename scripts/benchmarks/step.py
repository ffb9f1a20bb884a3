"""Times a training step and its parts."""

import math
import statistics
import tempfile
import time
from pathlib import Path

import click
from benchmarks.measuring import about, time_in_turn


def print_parts(setting, n_steps, plain):
    """Prints seconds of a step and of its parts; with `plain`, also of the step without our optimizations."""
    from deblur_gan.backend import start_backend

    start_backend(training=True)
    import keras

    from deblur_gan.training.losses import PerceptualLoss

    if plain and keras.backend.backend() != "tensorflow":
        raise click.UsageError(f"--plain: is written in TensorFlow, and the backend is {keras.backend.backend()}")
    networks, perceptual_loss, batch = setting.networks(), PerceptualLoss(weights=None), setting.batch()
    whole, short = (setting.gan(networks, perceptual_loss, updates) for updates in (None, 1))
    kinds = {"step": lambda: whole.train_on_batch(*batch), "one critic update": lambda: short.train_on_batch(*batch)}
    if plain:
        kinds["plain"] = _plain_step(setting.gan(networks, perceptual_loss), *batch)
    wall, cpu = ({kind: statistics.median(s) for kind, s in times.items()} for times in time_in_turn(kinds, n_steps))

    step, updates = wall["step"], setting.critic_updates
    critic = updates * (step - wall["one critic update"]) / (updates - 1)
    data = _time_data(setting.image_size, setting.batch_size, 20)
    operations = setting.batch_size * (
        # A gradient costs twice a forward pass; that of the penalty and of its gradient, six times in all.
        3 * _operations(keras.models.clone_model(networks[0], keras.Input(setting.image_shape)))
        + (12 * updates + 2) * _operations(networks[1])
        + 3 * _operations(keras.models.clone_model(perceptual_loss.features, keras.Input(setting.image_shape)))
    )
    multiply = _multiplication_speed()
    size = f"{setting.image_size}x{setting.image_size}, batch {setting.batch_size}, {setting.precision}"
    click.echo(about())
    click.echo(f"{setting.generator}, ngf {setting.ngf}, ndf {setting.ndf}, {size}")
    click.echo(f"  step                 {step:8.3f} s   median of {n_steps}; {setting.batch_size / step:.2f} images/s")
    click.echo(f"    critic             {critic:8.3f} s   {updates} updates")
    click.echo(f"    generator          {step - critic:8.3f} s   its forward pass, perceptual loss, its update")
    click.echo(f"  data                 {data:8.3f} s   a batch, prepared while the step runs")
    click.echo(
        f"  share of matrix multiplication: {operations / step / multiply:.0%} "
        f"({operations / step / 1e9:.0f} of {multiply / 1e9:.0f} GFLOP/s)"
    )
    if plain:
        click.echo(f"  written plainly      {wall['plain']:8.3f} s   ours takes {step / wall['plain']:.2f} of it")
        click.echo(
            f"  processor time       {cpu['step']:8.3f} s   {cpu['step'] / cpu['plain']:.2f} of {cpu['plain']:.3f}"
        )


def _plain_step(gan, blurred, sharp):
    """Returns the same step without our optimizations: a forward pass more, a call of the critic for each batch."""
    import tensorflow as tf

    blurred, sharp = tf.constant(blurred), tf.constant(sharp)

    @tf.function
    def step():
        restored = gan.generator(blurred, training=True)
        for _ in range(gan.critic_updates):
            with tf.GradientTape() as tape:
                epsilon = tf.random.uniform((len(sharp), 1, 1, 1))
                point = epsilon * sharp + (1 - epsilon) * restored
                with tf.GradientTape() as inner:
                    inner.watch(point)
                    score = tf.reduce_mean(gan.critic(point), axis=(1, 2, 3))
                norm = tf.sqrt(tf.reduce_sum(inner.gradient(score, point) ** 2, axis=(1, 2, 3)) + 1e-12)
                penalty = tf.reduce_mean((norm - 1) ** 2)
                critic_loss = tf.reduce_mean(gan.critic(restored)) - tf.reduce_mean(gan.critic(sharp)) + 10 * penalty
            weights = gan.critic.trainable_variables
            gan.critic_optimizer.apply(tape.gradient(critic_loss, weights), weights)
        with tf.GradientTape() as tape:
            restored = gan.generator(blurred, training=True)
            loss = 100 * gan.perceptual_loss(sharp, restored) - tf.reduce_mean(gan.critic(restored))
        weights = gan.generator.trainable_variables
        gan.generator_optimizer.apply(tape.gradient(loss, weights), weights)
        return critic_loss, loss

    return lambda: [value.numpy() for value in step()]


def _time_data(image_size, batch_size, n_batches):
    """Returns seconds for a batch from 1280x720 JPEG pairs, which are decoded each time."""
    import numpy as np

    from deblur_gan.data.pairs import find_pairs
    from deblur_gan.data.training_set import TrainingSet
    from deblur_gan.images.photographs import Photograph, write_photograph

    with tempfile.TemporaryDirectory() as folder:
        for name in ("A", "B"):
            (Path(folder) / name).mkdir()
            for number in range(4):
                pixels = np.random.default_rng(number).integers(0, 256, (90, 160, 3), np.uint8)
                photograph = Photograph(pixels.repeat(8, 0).repeat(8, 1), format="JPEG")
                write_photograph(Path(folder) / name / f"{number}.jpg", photograph)
        training_set = TrainingSet(find_pairs(folder)[0], batch_size=batch_size, crop_size=image_size)
        began = time.perf_counter()
        for _ in training_set.batches(0, n_batches):
            pass
        return (time.perf_counter() - began) / n_batches


def _operations(network):
    """Counts the floating-point operations of the convolutions of one forward pass for one image."""
    import keras

    from deblur_gan.networks import TransposedConv3x3Stride2

    total = 0
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            places = layer.output.shape[1:3]
        elif isinstance(layer, TransposedConv3x3Stride2):
            places = layer.input.shape[1:3]
        else:
            continue
        total += 2 * math.prod(places) * math.prod(layer.kernel.shape)
    return total


def _multiplication_speed(size=2048, n_times=5):
    """Measures floating-point operations per second of float32 matrix multiplication, the best of several."""
    import keras

    matrix = keras.random.normal((size, size))
    best = float("inf")
    for _ in range(n_times + 1):
        began = time.perf_counter()
        keras.ops.convert_to_numpy(keras.ops.matmul(matrix, matrix)[0, 0])
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best
