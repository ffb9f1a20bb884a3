"""Runs a generator on tiles, and keeps what a backend has compiled for the sizes that come again."""

import threading

from deblur_gan.backend import keep_model_precision, keras

# The sizes of tiles for which compiled code is kept; a photograph has one for each of its working sizes. JAX takes
# some 7 MB for a size.
SIZES_COMPILED = {"jax": 16, "openvino": 4}
# OpenVINO also keeps the memory for the activations: 45 MB for a tile of 304 pixels and the generator in the package.
# So large sizes are kept up to this number of pixels together.
PIXELS_COMPILED = 1_500_000

# OpenVINO refuses a second call of a network while the first is running, and one call uses all cores on any backend.
_predicting = threading.Lock()


def predict(generator, values):
    """Returns the output of a generator for float32 values `(B, H, W, 3)`. Calls from several threads are safe."""
    with _predicting, keep_model_precision():
        compiled = vars(generator).setdefault("_compiled", {})
        size = values.shape[1:]
        if keras.backend.backend() == "openvino":
            # Keras keeps the network that OpenVINO compiled last, with its weights, and compiles if the size changes.
            weights = [weight.value for weight in getattr(generator, "weights", ())]
            before = vars(generator).get("_weights_compiled", weights)
            if any(value is not former for value, former in zip(weights, before, strict=True)):
                compiled.clear()
            vars(generator)["_weights_compiled"] = weights
            generator.ov_compiled_model, generator.ov_input_shapes = compiled.pop(size, (None, None))
            output = generator.predict_on_batch(values)
            compiled[size] = generator.ov_compiled_model, generator.ov_input_shapes
            while len(compiled) > 1 and _too_many(compiled):
                del compiled[next(iter(compiled))]
            return output
        if keras.backend.backend() == "jax":
            # JAX keeps what it compiled for all sizes.
            if values.shape not in compiled and len(compiled) == SIZES_COMPILED["jax"]:
                generator.make_predict_function(force=True)
                compiled.clear()
            compiled[values.shape] = True
        return generator.predict_on_batch(values)


def _too_many(sizes):
    n_pixels = sum(height * width for height, width, _ in sizes)
    return len(sizes) > SIZES_COMPILED["openvino"] or n_pixels > PIXELS_COMPILED
