"""The two generators and the two critics, as Keras functional graphs.

`meudec` is Raphael Meudec's Keras implementation, whose published `.h5` files it fits. `paper` is the network of
DeblurGAN (Kupyn et al., CVPR 2018, https://arxiv.org/abs/1711.07064, section 3.2) with the paddings of its authors'
PyTorch code. The order of the layers that hold weights is the file format: do not reorder them.
"""

import numpy as np

from deblur_gan.backend import keras

layers = keras.layers

ARCHITECTURES = ("meudec", "paper")


@keras.saving.register_keras_serializable(package="deblur_gan")
class ReflectionPadding2D(layers.Layer):
    """Pads height and width by mirroring the image at its border, without repeating the border itself.

    Args:
        padding: int, rows and columns added at each side. The input must have more than `padding` of them.

    Call: `(B, H, W, C)` to `(B, H + 2 * padding, W + 2 * padding, C)`.
    """

    def __init__(self, padding=1, **kwargs):
        super().__init__(**kwargs)
        self.padding = padding

    def call(self, inputs):
        both = (self.padding, self.padding)
        if keras.backend.backend() == "torch":
            # PyTorch is fast at mirroring the last two axes, and where they are not the last, it mirrors three.
            channels_first = keras.ops.transpose(inputs, (0, 3, 1, 2))
            padded = keras.ops.pad(channels_first, ((0, 0), (0, 0), both, both), mode="reflect")
            return keras.ops.transpose(padded, (0, 2, 3, 1))
        return keras.ops.pad(inputs, ((0, 0), both, both, (0, 0)), mode="reflect")

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        grow = 2 * self.padding
        return batch, height and height + grow, width and width + grow, channels

    def get_config(self):
        return {**super().get_config(), "padding": self.padding}


@keras.saving.register_keras_serializable(package="deblur_gan")
class InstanceNormalization(layers.Layer):
    """Gives each channel of each image mean 0 and variance 1 over its pixels; no weights, no running statistics.

    The same numbers as `keras.layers.GroupNormalization(groups=-1, center=False, scale=False)`, without its
    reshape to five dimensions. Statistics are taken in float32 whatever the layer computes in.

    Args:
        epsilon: float added to the variance.

    Call: `(B, H, W, C)` to the same shape.

    Reference: Ulyanov et al., "Instance Normalization", https://arxiv.org/abs/1607.08022
    """

    def __init__(self, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def call(self, inputs):
        pixels = keras.ops.cast(inputs, "float32")
        # Not `keras.ops.moments`: TensorFlow's takes the mean inside the variance for a constant, which makes the
        # second derivative wrong that the gradient penalty needs. Keras' GroupNormalization has that flaw there too.
        centred = pixels - keras.ops.mean(pixels, axis=(1, 2), keepdims=True)
        variance = keras.ops.mean(keras.ops.square(centred), axis=(1, 2), keepdims=True)
        return keras.ops.cast(centred * keras.ops.rsqrt(variance + self.epsilon), inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="deblur_gan")
class Clip(layers.Layer):
    """Limits every value to [-1, 1], the range of images inside the networks."""

    def call(self, inputs):
        return keras.ops.clip(inputs, -1.0, 1.0)

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(package="deblur_gan")
class Conv2DTranspose(layers.Conv2DTranspose):
    """Keras' transposed convolution with a 3x3 kernel, stride 2 and no padding, as four ordinary convolutions.

    The four compute the pixels of even and odd rows and columns. TensorFlow's own operation, where it runs on oneDNN,
    keeps a buffer for every size of image that it ever saw (33 MB each), so that restoring a folder would fill memory.
    Training sees one size, and is faster with it.

    Call: `(B, H, W, C)` to `(B, 2 * H + 1, 2 * W + 1, filters)`.
    """

    def call(self, inputs, training=False):
        if training and keras.backend.backend() == "tensorflow":
            return super().call(inputs)
        kernel = keras.ops.transpose(self.kernel, (0, 1, 3, 2))
        # An even row 2i is made of the input's rows i and i - 1, an odd one 2i + 1 of its row i.
        padded = keras.ops.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
        mirrored = keras.ops.flip(keras.ops.flip(kernel, 0), 1)
        parts = [
            keras.ops.conv(padded[:, odd_row:, odd_column:], mirrored[odd_row::2, odd_column::2])
            for odd_row in (0, 1)
            for odd_column in (0, 1)
        ]
        batch, height, width, _ = keras.ops.shape(parts[0])
        rows = [keras.ops.stack(parts[:2], axis=3), keras.ops.stack(parts[2:], axis=3)]
        pixels = keras.ops.reshape(keras.ops.stack(rows, axis=2), (batch, 2 * height, 2 * width, self.filters))
        return pixels[:, :-1, :-1] + self.bias


def _normalization(architecture, name, dtype):
    if architecture == "meudec":
        return layers.BatchNormalization(name=name, dtype=dtype)
    return InstanceNormalization(name=name, dtype=dtype)


def residual_block(x, filters, architecture, name, dtype="float32", dropout=0.5):
    """Reflection pad, 3x3 convolution, norm, ReLU, dropout, reflection pad, 3x3 convolution, norm, plus the input.

    Args:
        x: symbolic tensor `(B, H, W, filters)`.
        filters: int, channels of `x` and of the result.
        architecture: "meudec" (batch normalization) or "paper" (instance normalization).
        name: str, prefix of the layer names.
        dtype: Keras dtype policy of the layers.
        dropout: float in [0, 1), the share of activations that training drops.

    Returns:
        Symbolic tensor of the shape of `x`.
    """
    y = ReflectionPadding2D(1, name=f"{name}_pad1", dtype=dtype)(x)
    y = layers.Conv2D(filters, 3, name=f"{name}_conv1", dtype=dtype)(y)
    y = _normalization(architecture, f"{name}_norm1", dtype)(y)
    y = layers.Activation("relu", name=f"{name}_relu", dtype=dtype)(y)
    y = layers.Dropout(dropout, name=f"{name}_dropout", dtype=dtype)(y)
    y = ReflectionPadding2D(1, name=f"{name}_pad2", dtype=dtype)(y)
    y = layers.Conv2D(filters, 3, name=f"{name}_conv2", dtype=dtype)(y)
    y = _normalization(architecture, f"{name}_norm2", dtype)(y)
    return layers.Add(name=f"{name}_add", dtype=dtype)([x, y])


def generator_model(
    architecture="meudec", ngf=64, n_blocks=9, image_shape=(None, None, 3), dtype="float32", dropout=0.5
):
    """Builds the network that takes a blurred image to a restored one.

    A 7x7 convolution, two strided convolutions, `n_blocks` residual blocks, two upsampling convolutions, a 7x7
    convolution with tanh, and the blurred image added to the result.

    Args:
        architecture: "meudec" or "paper". `meudec` normalizes over the batch, upsamples by nearest neighbour and
            returns `(tanh + input) / 2`; `paper` normalizes each image, upsamples by transposed convolutions and
            returns `clip(tanh + input, -1, 1)`.
        ngf: int, channels after the first convolution; the residual blocks have four times as many.
        n_blocks: int, number of residual blocks.
        image_shape: `(H, W, 3)`; height and width are multiples of 4 and at least 8, or None.
        dtype: Keras dtype policy of all layers but those behind the last convolution, which always compute in float32.
        dropout: float in [0, 1), the share of activations that training drops in each residual block.

    Returns:
        `keras.Model` named "generator": float32 `(B, H, W, 3)` in [-1, 1] to the same shape and range.

    Raises:
        ValueError: if an argument is outside what is said above.

    Reference: https://arxiv.org/abs/1711.07064, figure 3; https://github.com/RaphaelMeudec/deblur-gan
    """
    _require_buildable(architecture, image_shape, ngf=ngf, n_blocks=n_blocks)
    if any(side is not None and (side % 4 or side < 8) for side in image_shape[:2]):
        raise ValueError(
            f"image_shape={tuple(image_shape)}: height and width must be multiples of 4 and at least 8, or None"
        )
    meudec = architecture == "meudec"

    blurred = keras.Input(image_shape, name="blurred", dtype="float32")
    x = ReflectionPadding2D(3, name="stem_pad", dtype=dtype)(blurred)
    x = layers.Conv2D(ngf, 7, name="stem_conv", dtype=dtype)(x)
    x = _normalization(architecture, "stem_norm", dtype)(x)
    x = layers.Activation("relu", name="stem_relu", dtype=dtype)(x)

    for number, filters in enumerate((2 * ngf, 4 * ngf), 1):
        if meudec:
            padding = "same"
        else:
            padding = "valid"
            x = layers.ZeroPadding2D(1, name=f"down{number}_pad", dtype=dtype)(x)
        x = layers.Conv2D(filters, 3, strides=2, padding=padding, name=f"down{number}_conv", dtype=dtype)(x)
        x = _normalization(architecture, f"down{number}_norm", dtype)(x)
        x = layers.Activation("relu", name=f"down{number}_relu", dtype=dtype)(x)

    for number in range(1, n_blocks + 1):
        x = residual_block(x, 4 * ngf, architecture, f"block{number}", dtype, dropout)

    for number, filters in enumerate((2 * ngf, ngf), 1):
        if meudec:
            x = layers.UpSampling2D(name=f"up{number}_nearest", dtype=dtype)(x)
            x = layers.Conv2D(filters, 3, padding="same", name=f"up{number}_conv", dtype=dtype)(x)
        else:
            x = Conv2DTranspose(filters, 3, strides=2, name=f"up{number}_conv", dtype=dtype)(x)
            x = layers.Cropping2D(((1, 0), (1, 0)), name=f"up{number}_crop", dtype=dtype)(x)
        x = _normalization(architecture, f"up{number}_norm", dtype)(x)
        x = layers.Activation("relu", name=f"up{number}_relu", dtype=dtype)(x)

    x = ReflectionPadding2D(3, name="head_pad", dtype=dtype)(x)
    x = layers.Conv2D(3, 7, name="head_conv", dtype=dtype)(x)
    # The difference that restores a photograph is often below what half precision can add to 1.
    x = layers.Activation("tanh", name="head_tanh", dtype="float32")(x)
    x = layers.Add(name="head_add", dtype="float32")([x, blurred])
    if meudec:
        restored = layers.Rescaling(0.5, name="restored", dtype="float32")(x)
    else:
        restored = Clip(name="restored", dtype="float32")(x)
    return keras.Model(blurred, restored, name="generator")


def widened_weights(narrow, wide, seed=0):
    """Makes of the weights of a generator those of a wider one that gives the same images.

    Every channel becomes several that hold the same, and what reads them shares its kernel out among them. The shares
    are random: equal ones would give the copies of a channel the same gradients for ever.

    Args:
        narrow: `keras.Model` from `generator_model`.
        wide: another, of the same architecture and blocks; its `ngf` is a multiple of that of `narrow`.
        seed: int, for the shares.

    Returns:
        List of float32 arrays for `wide.set_weights`.

    Reference: Chen et al., "Net2Net: Accelerating Learning via Knowledge Transfer", https://arxiv.org/abs/1511.05641
    """
    rng = np.random.default_rng(seed)
    weights = []
    for narrow_layer, wide_layer in zip(narrow.layers, wide.layers, strict=True):
        for value, variable in zip(narrow_layer.get_weights(), wide_layer.weights, strict=True):
            value = np.tile(value, [new // old for new, old in zip(variable.shape, value.shape, strict=True)])
            if value.ndim == 4:
                read = 3 if isinstance(wide_layer, layers.Conv2DTranspose) else 2
                n_copies = value.shape[read] // narrow_layer.kernel.shape[read]
                written, read_once = value.shape[5 - read], value.shape[read] // n_copies
                shares = rng.dirichlet([1.0] * n_copies, size=(written, read_once))  # (written, read_once, n_copies)
                shares = np.moveaxis(shares, 2, 0).swapaxes(1, 2).reshape(n_copies * read_once, written)
                value = value * (shares if read == 2 else shares.T)
            weights.append(value.astype(np.float32))
    return weights


def critic_model(architecture="paper", ndf=64, image_shape=(256, 256, 3), dtype="float32"):
    """Builds the network that scores how sharp images look; a higher score is sharper.

    Args:
        architecture: "paper" or "meudec". `paper` is the PatchGAN: one score for each overlapping patch, no
            sigmoid, no batch statistics, fit for a gradient penalty. `meudec` ends in two dense layers and a
            sigmoid; it exists to read and continue from his `discriminator_*.h5`.
        ndf: int, channels after the first convolution.
        image_shape: `(H, W, 3)`. `paper` also takes None for height and width; `meudec` has weights for one size.
        dtype: Keras dtype policy of all layers but the last, which always computes in float32.

    Returns:
        `keras.Model` named "critic": float32 `(B, H, W, 3)` in [-1, 1] to float32 scores, `(B, h, w, 1)`
        (35x35 for 256x256) for `paper` and `(B, 1)` in (0, 1) for `meudec`.

    Raises:
        ValueError: if an argument is outside what is said above.

    Reference: Isola et al., https://arxiv.org/abs/1611.07004 (PatchGAN); Gulrajani et al.,
        https://arxiv.org/abs/1704.00028 (why a critic has no batch normalization)
    """
    _require_buildable(architecture, image_shape, ndf=ndf)
    image = keras.Input(image_shape, name="image", dtype="float32")
    if architecture == "paper":
        score = _patch_scores(image, ndf, dtype)
    else:
        if None in image_shape[:2]:
            raise ValueError(
                f"image_shape={tuple(image_shape)}: the meudec critic has dense layers and needs a height and a width"
            )
        score = _dense_score(image, ndf, dtype)
    return keras.Model(image, score, name="critic")


def _patch_scores(image, ndf, dtype):
    x = image
    for number, (filters, strides) in enumerate(((ndf, 2), (2 * ndf, 2), (4 * ndf, 2), (8 * ndf, 1)), 1):
        x = layers.ZeroPadding2D(2, name=f"patch{number}_pad", dtype=dtype)(x)
        x = layers.Conv2D(filters, 4, strides=strides, name=f"patch{number}_conv", dtype=dtype)(x)
        if number > 1:
            x = InstanceNormalization(name=f"patch{number}_norm", dtype=dtype)(x)
        x = layers.LeakyReLU(negative_slope=0.2, name=f"patch{number}_relu", dtype=dtype)(x)
    x = layers.ZeroPadding2D(2, name="score_pad", dtype="float32")(x)
    return layers.Conv2D(1, 4, name="score", dtype="float32")(x)


def _dense_score(image, ndf, dtype):
    x = image
    for number, (filters, strides) in enumerate(((ndf, 2), (ndf, 2), (2 * ndf, 2), (4 * ndf, 2), (8 * ndf, 1)), 1):
        x = layers.Conv2D(filters, 4, strides=strides, padding="same", name=f"conv{number}", dtype=dtype)(x)
        if number > 1:
            x = layers.BatchNormalization(name=f"norm{number}", dtype=dtype)(x)
        x = layers.LeakyReLU(negative_slope=0.2, name=f"relu{number}", dtype=dtype)(x)
    x = layers.Conv2D(1, 4, padding="same", name="conv6", dtype=dtype)(x)
    x = layers.Flatten(name="flatten", dtype=dtype)(x)
    x = layers.Dense(1024, activation="tanh", name="dense", dtype=dtype)(x)
    return layers.Dense(1, activation="sigmoid", name="score", dtype="float32")(x)


def _require_buildable(architecture, image_shape, **counts):
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture={architecture!r}: must be one of {', '.join(ARCHITECTURES)}")
    if len(image_shape) != 3 or image_shape[2] != 3:
        raise ValueError(f"image_shape={tuple(image_shape)}: must be (height, width, 3)")
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name}={count!r}: must be a positive integer")
