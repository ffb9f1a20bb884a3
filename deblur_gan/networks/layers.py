"""The layers of the networks. All take images as `(B, H, W, C)`, whatever `keras.json` says."""

import functools

from deblur_gan.backend import keras

layers, ops = keras.layers, keras.ops

# `keras.json` may select channels_first, which then is the default of these layers.
Conv2D, ZeroPadding2D, UpSampling2D, Flatten = (
    functools.partial(layer, data_format="channels_last")
    for layer in (layers.Conv2D, layers.ZeroPadding2D, layers.UpSampling2D, layers.Flatten)
)


@keras.saving.register_keras_serializable(package="deblur_gan")
class ReflectionPadding2D(layers.Layer):
    """Pads height and width by mirroring the image at its border, without repeating the border itself.

    `padding` rows and columns are added at each side; the input must have more of them.

    Call: `(B, H, W, C)` to `(B, H + 2 * padding, W + 2 * padding, C)`.

    Example:
        >>> tuple(ReflectionPadding2D(3)(keras.ops.zeros((1, 8, 8, 3))).shape)
        (1, 14, 14, 3)
    """

    def __init__(self, padding=1, **kwargs):
        super().__init__(**kwargs)
        self.padding = padding

    def call(self, inputs):
        both = (self.padding, self.padding)
        if keras.backend.backend() == "torch":
            # PyTorch mirrors the last axes: the last two quickly; otherwise it mirrors three.
            channels_first = ops.transpose(inputs, (0, 3, 1, 2))
            padded = ops.pad(channels_first, ((0, 0), (0, 0), both, both), mode="reflect")
            return ops.transpose(padded, (0, 2, 3, 1))
        return ops.pad(inputs, ((0, 0), both, both, (0, 0)), mode="reflect")

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        grow = 2 * self.padding
        return batch, height and height + grow, width and width + grow, channels

    def get_config(self):
        return {**super().get_config(), "padding": self.padding}


@keras.saving.register_keras_serializable(package="deblur_gan")
class InstanceNormalization(layers.Layer):
    """Gives each channel of each image mean 0 and variance 1 over its pixels; no weights, no running statistics.

    Computes the same numbers as `keras.layers.GroupNormalization(groups=-1, center=False, scale=False)`, without its
    reshape to five dimensions. The statistics are computed in float32 in every precision. `epsilon` is added to the
    variance.

    Call: `(B, H, W, C)` to the same shape.

    Reference: Ulyanov et al., "Instance Normalization", https://arxiv.org/abs/1607.08022

    Example:
        >>> tuple(InstanceNormalization()(keras.random.normal((1, 8, 8, 3))).shape)
        (1, 8, 8, 3)
    """

    def __init__(self, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def call(self, inputs):
        pixels = ops.cast(inputs, "float32")
        # On TensorFlow `keras.ops.moments` treats the mean inside the variance as a constant. The gradient penalty
        # needs the second derivative, which is then wrong. Keras' GroupNormalization has the same fault.
        centred = pixels - ops.mean(pixels, axis=(1, 2), keepdims=True)
        variance = ops.mean(ops.square(centred), axis=(1, 2), keepdims=True)
        return ops.cast(centred * ops.rsqrt(variance + self.epsilon), inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="deblur_gan")
class Clip(layers.Layer):
    """Limits every value to [-1, 1], the range of images inside the networks.

    Example:
        >>> float(Clip()(keras.ops.array(2.0)))
        1.0
    """

    def call(self, inputs):
        return ops.clip(inputs, -1.0, 1.0)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(package="deblur_gan")
class TransposedConv3x3Stride2(layers.Layer):
    """Doubles height and width by a transposed convolution with a 3x3 kernel and stride 2.

    Computes the same numbers as PyTorch's `ConvTranspose2d(C, filters, 3, stride=2, padding=1, output_padding=1)`,
    by four ordinary convolutions, one for each of the even and odd rows and columns of the output. TensorFlow's own
    operation is slower. On oneDNN it also keeps a buffer of 33 MB for every image size, which fills the memory when a
    folder is restored.

    Call: `(B, H, W, C)` to `(B, 2 * H, 2 * W, filters)`. Weights: kernel `(3, 3, filters, C)`, bias `(filters,)`.

    Example:
        >>> tuple(TransposedConv3x3Stride2(16)(keras.ops.zeros((1, 8, 8, 32))).shape)
        (1, 16, 16, 16)
    """

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel", shape=(3, 3, self.filters, input_shape[-1]), initializer="glorot_uniform"
        )
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, inputs):
        kernel = ops.transpose(self.kernel, (0, 1, 3, 2))
        # Output row 2i is input row i times kernel row 1. Output row 2i + 1 is input row i times kernel row 2 plus
        # input row i + 1 times kernel row 0. The same holds for columns.
        parts = [
            ops.conv(inputs, part, padding="same", data_format="channels_last")
            for rows in (kernel[1:2], ops.flip(kernel[::2], 0))
            for part in (rows[:, 1:2], ops.flip(rows[:, ::2], 1))
        ]
        batch, height, width, _ = ops.shape(inputs)
        rows = [ops.stack(parts[:2], axis=3), ops.stack(parts[2:], axis=3)]
        pixels = ops.reshape(ops.stack(rows, axis=2), (batch, 2 * height, 2 * width, self.filters))
        return pixels + self.bias

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return batch, height and 2 * height, width and 2 * width, self.filters

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}
