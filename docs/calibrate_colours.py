"""Trains a `meudec` generator to keep flat colours, and to restore photographs as it did before.

python docs/calibrate_colours.py --weight_path RUN/generator_best.h5 --data_dir images/train --output calibrated.h5
"""

import itertools
from pathlib import Path

import click
import numpy as np

from deblur_gan.commands import command

# These leave a flat picture as it is.
WITHOUT_EFFECT = "ReflectionPadding2D", "UpSampling2D"


def on_flat_pictures(generator):
    """Builds what a generator is for pictures of one colour: a model of single pixels, `(B, 1, 1, 3)`, in [-1, 1].

    Away from the border all pixels of such a picture are equal, and so are those of its features. There a convolution
    is the product with the sum of its kernel. The model shares the weights of the generator.
    """
    from deblur_gan.backend import keras

    class OnePixel(keras.layers.Layer):
        def __init__(self, convolution):
            super().__init__(name=convolution.name)
            self.convolution = convolution

        def call(self, inputs):
            kernel = keras.ops.sum(self.convolution.kernel, axis=(0, 1))
            return self.convolution.activation(keras.ops.matmul(inputs, kernel) + self.convolution.bias)

    def of_one_pixel(layer):
        if isinstance(layer, keras.layers.Conv2D):
            return OnePixel(layer)
        return keras.layers.Identity(name=layer.name) if type(layer).__name__ in WITHOUT_EFFECT else layer

    copy = keras.models.clone_model(generator, clone_function=of_one_pixel)
    return keras.Model(copy.inputs, copy.outputs, name="on_flat_pictures")


def casts(generator):
    """Returns by how much the 125 colours of 0, 64, 128, 192 and 255 come back changed, `(125, 3)`, in levels of 255.

    Each is restored as a picture of 64x64 pixels, of which the inner 32x32 count.
    """
    from deblur_gan.images.pixels import from_uint8

    colours = np.array(list(itertools.product((0, 64, 128, 192, 255), repeat=3)), "uint8")
    pictures = from_uint8(np.tile(colours[:, None, None], (1, 64, 64, 1)))
    restored = 127.5 * (generator.predict(pictures, verbose=0) + 1)
    return restored[:, 16:48, 16:48].mean((1, 2), np.float64) - colours


def calibrate(generator, batches, n_steps, learning_rate=3e-4, n_colours=512, colour_weight=30.0, seed=0):
    """Trains a generator so that flat colours come back and photographs come back as they did before.

    The loss is the mean squared difference to what the generator made of the same photographs before, plus
    `colour_weight` times that of flat colours to themselves. These lie anywhere between a grey and a colour, as those
    of photographs do, and some channels are 0 or 255. The learning rate falls to 0; batch normalization stays as it is,
    and nothing is dropped out.

    Args:
        generator: `meudec` generator, changed in place.
        batches: iterable over float32 `(B, H, W, 3)` in [-1, 1], photographs to restore; at least `n_steps` of them.
        n_steps: int, steps of Adam.
        learning_rate: float, of Adam.
        n_colours: int, flat colours in a step.
        colour_weight: float.
        seed: int, for the colours.
    """
    from deblur_gan.backend import keras

    before = keras.models.clone_model(generator)
    before.set_weights(generator.get_weights())
    for layer in generator.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0  # Keras trains inner models as it trains the outer one, whatever they are called with
    inputs = keras.Input((None, None, 3)), keras.Input((1, 1, 3))
    outputs = [generator(inputs[0]), on_flat_pictures(generator)(inputs[1])]
    model = keras.Model(inputs, outputs)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, n_steps)
    model.compile(keras.optimizers.Adam(schedule), ["mse", "mse"], loss_weights=[1.0, colour_weight], jit_compile=False)
    rng = np.random.default_rng(seed)

    def samples():
        for photographs in batches:
            shape = n_colours, 1, 1
            greys, colours = (rng.uniform(-1.3, 1.3, (*shape, n_channels)) for n_channels in (1, 3))
            chroma = rng.uniform(0, 1, (*shape, 1)) ** 0.5
            colours = np.clip(greys + chroma * (colours - greys), -1, 1).astype("float32")
            yield (photographs, colours), (before.predict_on_batch(photographs), colours)

    model.fit(samples(), steps_per_epoch=n_steps, shuffle=False)


@command()
@click.option("--weight_path", type=click.Path(exists=True, dir_okay=False), required=True)
@click.option("--data_dir", type=click.Path(), multiple=True, required=True, help="Pairs; only blurred sides count.")
@click.option("--output", type=click.Path(), required=True, help="The file, .h5; an existing one is replaced.")
@click.option("--n_steps", type=click.IntRange(min=1), default=1000)
@click.option("--batch_size", type=click.IntRange(min=1), default=3)
@click.option("--crop_size", type=click.IntRange(min=32), default=96)
@click.option("--colour_weight", type=click.FloatRange(min=0), default=30.0, help="Of flat colours in the loss.")
def main(weight_path, data_dir, output, n_steps, batch_size, crop_size, colour_weight):
    """Writes the file as float16, and prints how far flat colours are off before and after.

    The file records what trained the one that was given, as `calibration_of`.
    """
    if not output.endswith(".h5") or not Path(output).absolute().parent.is_dir():
        raise click.UsageError(f"--output {output!r}: must end in .h5, in a folder that exists")
    from deblur_gan.backend import start_backend

    start_backend(training=True)
    from deblur_gan.data import find_pairs
    from deblur_gan.data.training_set import TrainingSet
    from deblur_gan.weights import BadWeights, describe, load_generator, save_generator

    def print_casts(when):
        off = np.abs(casts(generator))
        click.echo(f"{when}: flat colours are off by {off.mean():.2f} levels on average, by {off.max():.2f} at most")

    found = describe(weight_path)
    if (found["architecture"], found["network"]) != ("meudec", "generator"):
        raise BadWeights(f"{weight_path}: holds a {found['architecture']} {found['network']}; give a meudec generator")
    generator = load_generator(weight_path)
    print_casts("before")
    pairs = [pair for folder in data_dir for pair in find_pairs(folder)[0]]
    if not pairs:
        raise ValueError(f"{data_dir[0]}: contains no pairs")
    data = TrainingSet(
        pairs, batch_size=batch_size, crop_size=crop_size, scale=1.0, working_scale=(1, 2), turn=True, n_workers=1
    )
    calibrate(generator, (blurred for blurred, _ in data.batches()), n_steps, colour_weight=colour_weight)
    print_casts("after")
    training = {"calibration_of": found.get("training", {}), "n_steps": n_steps, "colour_weight": colour_weight}
    save_generator(generator, output, training, "float16")


if __name__ == "__main__":
    main()
