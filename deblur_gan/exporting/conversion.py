"""Shared by the formats of other engines: the network that is converted, and an engine in place of a Keras model."""

from deblur_gan.backend import keras

# The key or file name of the JSON that states how a file is used and where it comes from.
METADATA_NAME = "deblur_gan"

# The input of every converted network; files keep its name.
INPUT = [keras.InputSpec(dtype="float32", shape=(None, None, None, 3), name="blurred")]


class Engine:
    """An exported network in place of a `keras.Model`: a function, and the generator's layers, which `deblur` reads."""

    def __init__(self, run, layers):
        self.predict_on_batch, self.layers = run, layers

    def make_predict_function(self, force=False):
        """Does nothing: Keras on JAX compiles a function for each size, which `deblur` discards here."""


class _Doubling(keras.layers.UpSampling2D):
    """Repeats each pixel twice; Keras' own layer loses the number of channels when height and width are free."""

    def call(self, inputs):
        batch, height, width, channels = keras.ops.shape(inputs)
        rows = keras.ops.stack([inputs, inputs], axis=3)
        pixels = keras.ops.stack([rows, rows], axis=2)
        return keras.ops.reshape(pixels, (batch, 2 * height, 2 * width, channels))


def convert(generator, path, format, **options):
    """Writes a generator with `keras.Model.export`, which gets the options."""

    def convertible(layer):
        return _Doubling.from_config(layer.get_config()) if type(layer) is keras.layers.UpSampling2D else layer

    network = keras.models.clone_model(generator, clone_function=convertible)
    network.export(str(path), format=format, verbose=False, input_signature=INPUT, **options)
