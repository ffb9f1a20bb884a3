"""Times the training step and says where the time goes: python scripts/benchmark.py

With --engines: what a generator takes in each format that it can be exported to.
"""

import math
import statistics
import tempfile
import time
from pathlib import Path

import click


@click.command(context_settings={"show_default": True})
@click.option("--generator", type=click.Choice(["meudec", "paper"]), default="paper", help="Generator.")
@click.option("--image_size", type=click.IntRange(32), default=256, help="Height and width of a crop, pixels.")
@click.option("--batch_size", type=click.IntRange(1), default=1, help="Pairs in a step.")
@click.option("--critic_updates", type=click.IntRange(2), default=5, help="Updates of the critic in a step.")
@click.option("--n_steps", type=click.IntRange(1), default=5, help="Steps timed of each kind, in turn.")
@click.option(
    "--precision", type=click.Choice(["float32", "mixed_bfloat16", "mixed_float16"]), default="float32", help="Dtype."
)
@click.option("--plain", is_flag=True, help="Also time the step written plainly (TensorFlow).")
@click.option(
    "--engines",
    type=click.Path(exists=True, path_type=Path),
    help="Instead: export these weights of a generator to every format, and print size and time of each on a "
    "photograph of 600x400 pixels, the median of --n_steps in turn.",
)
def benchmark(generator, image_size, batch_size, critic_updates, n_steps, precision, plain, engines):
    """Times the training step at full width on this machine and backend (KERAS_BACKEND=tensorflow, jax or torch).

    Prints seconds per step and their parts, images per second, and the share of the speed of this machine's own
    matrix multiplication, in the same run. VGG has random weights, which take as long.
    """
    from deblur_gan.backend import start_backend

    start_backend(training=True)
    import keras
    import numpy as np

    from deblur_gan.gan import DeblurGAN
    from deblur_gan.losses import PerceptualLoss
    from deblur_gan.networks import critic_model, generator_model

    if engines:
        _print_engines(engines, n_steps)
        return
    if plain and keras.backend.backend() != "tensorflow":
        raise click.UsageError(f"--plain: is written in TensorFlow, and the backend is {keras.backend.backend()}")
    if image_size % 4:
        raise click.UsageError(f"--image_size {image_size}: must be a multiple of 4")
    shape = (image_size, image_size, 3)
    networks = (
        generator_model(generator, image_shape=shape, dtype=precision),
        critic_model(image_shape=shape, dtype=precision),
    )
    perceptual_loss = PerceptualLoss(weights=None)

    def gan(critic_updates):
        model = DeblurGAN(*networks, perceptual_loss, critic_updates=critic_updates)
        model.compile(keras.optimizers.Adam(1e-4), keras.optimizers.Adam(1e-4))
        return model

    batch = np.random.default_rng(0).uniform(-1, 1, (2, batch_size, *shape)).astype("float32")
    whole, short = gan(critic_updates), gan(1)
    kinds = {"step": lambda: whole.train_on_batch(*batch), "one critic update": lambda: short.train_on_batch(*batch)}
    if plain:
        kinds["plain"] = _plain_step(gan(critic_updates), *batch)
    wall, cpu = _time_in_turn(kinds, n_steps)

    step = wall["step"]
    critic = critic_updates * (step - wall["one critic update"]) / (critic_updates - 1)
    data = _time_data(image_size, batch_size, 20)
    operations = batch_size * (
        # A gradient costs twice a forward pass; that of the penalty and of its gradient, six times in all.
        3 * _operations(networks[0])
        + (12 * critic_updates + 2) * _operations(networks[1])
        + 3 * _operations(keras.models.clone_model(perceptual_loss.features, keras.Input(shape)))
    )
    multiply = _multiplication_speed()
    click.echo(f"{keras.backend.backend()}, {generator}, {image_size}x{image_size}, batch {batch_size}, {precision}")
    click.echo(f"  step                 {step:8.3f} s   median of {n_steps}; {batch_size / step:.2f} images/s")
    click.echo(f"    critic             {critic:8.3f} s   {critic_updates} updates")
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


def _time_in_turn(kinds, n_steps):
    """Medians of wall and processor seconds, A B A B, so that what else the machine does meets all alike."""
    wall, cpu = {name: [] for name in kinds}, {name: [] for name in kinds}
    for function in kinds.values():
        function()  # compiles
        function()
    for _ in range(n_steps):
        for name, function in kinds.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            function()
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - began_cpu)
    return tuple({name: statistics.median(values) for name, values in times.items()} for times in (wall, cpu))


def _print_engines(weight_path, n_times):
    """A table of the formats: size of the file, seconds for a photograph, and their share of what Keras takes."""
    import skimage

    from deblur_gan.engines import FORMATS, load_exported
    from deblur_gan.export import CannotExport, export_generator
    from deblur_gan.photographs import read_rgb
    from deblur_gan.restoration import deblur
    from deblur_gan.weights import load_generator

    photograph = read_rgb(Path(skimage.__file__).parent / "data" / "coffee.png")
    generator = load_generator(weight_path)
    sizes, restorers = {"Keras": weight_path.stat().st_size}, {"Keras": generator}
    with tempfile.TemporaryDirectory() as folder:
        for format, known in FORMATS.items():
            for precision in known.precisions if format != "pth" else ():
                name, files = f"{format} {precision}", Path(folder) / f"{format}_{precision}"
                files.mkdir()
                try:
                    export_generator(weight_path, files / f"generator{known.suffix}", format, precision)
                except CannotExport as error:
                    click.echo(str(error), err=True)
                    continue
                sizes[name] = sum(file.stat().st_size for file in files.rglob("*") if file.is_file())
                restorers[name] = load_exported(files / f"generator{known.suffix}", generator)
        kinds = {name: lambda restorer=restorer: deblur(restorer, photograph) for name, restorer in restorers.items()}
        wall, _ = _time_in_turn(kinds, n_times)
    click.echo("| format | MB | s | of Keras |\n|---|---:|---:|---:|")
    for name, seconds in wall.items():
        click.echo(f"| {name} | {sizes[name] / 1e6:.2f} | {seconds:.2f} | {seconds / wall['Keras']:.2f} |")


def _plain_step(gan, blurred, sharp):
    """The same step as one writes it first: the generator once more for the critic, each batch scored in a call."""
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
    """Seconds for a batch from 1280x720 JPEG pairs, decoded anew each time."""
    import numpy as np

    from deblur_gan.pairs import find_pairs
    from deblur_gan.photographs import Photograph, write_photograph
    from deblur_gan.training_set import TrainingSet

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
    """Floating-point operations of the convolutions of one forward pass for one image."""
    import keras

    total = 0
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):
            places = layer.output.shape[1:3]
        elif isinstance(layer, keras.layers.Conv2DTranspose):
            places = layer.input.shape[1:3]
        else:
            continue
        total += 2 * math.prod(places) * math.prod(layer.kernel.shape)
    return total


def _multiplication_speed(size=2048, n_times=5):
    """Floating-point operations per second of float32 matrix multiplication, the best of several."""
    import keras

    matrix = keras.random.normal((size, size))
    best = float("inf")
    for _ in range(n_times + 1):
        began = time.perf_counter()
        keras.ops.convert_to_numpy(keras.ops.matmul(matrix, matrix)[0, 0])
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


if __name__ == "__main__":
    benchmark()
