"""TensorFlow's SavedModel, a folder."""

import json

from deblur_gan.exporting.conversion import METADATA_NAME, Engine, convert


def write(generator, path, precision, facts):
    """Writes a SavedModel with the facts as a file in `assets.extra`."""
    convert(generator, path, "tf_saved_model")
    extra = path / "assets.extra"
    extra.mkdir()
    (extra / f"{METADATA_NAME}.json").write_text(json.dumps(facts), encoding="utf-8")


def load(path, generator):
    """Starts TensorFlow."""
    import tensorflow as tf

    model = tf.saved_model.load(str(path))
    return Engine(lambda values: model.serve(values).numpy(), generator.layers)
