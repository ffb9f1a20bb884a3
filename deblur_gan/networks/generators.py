"""The generators, as Keras functional graphs. Each reads from the blurred image at the top to the restored one.

`meudec` is Raphael Meudec's Keras implementation, whose published `.h5` files it fits. `paper` is the network of
DeblurGAN (Kupyn et al., CVPR 2018, https://arxiv.org/abs/1711.07064, section 3.2) with the paddings of its authors'
PyTorch code. The order of the layers that hold weights is the file format: do not reorder them.
"""

from deblur_gan.architectures import GENERATORS, require_buildable
from deblur_gan.backend import keras
from deblur_gan.networks.layers import (
    Clip,
    Conv2D,
    InstanceNormalization,
    ReflectionPadding2D,
    TransposedConv3x3Stride2,
    UpSampling2D,
    ZeroPadding2D,
)

layers = keras.layers


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
        dtype: Keras dtype policy of all layers except those after the last convolution, which compute in float32.
        dropout: float in [0, 1), the share of activations that training drops in each residual block.

    Returns:
        `keras.Model` named "generator": float32 `(B, H, W, 3)` in [-1, 1] to the same shape and range.

    Raises:
        ValueError: if an argument is not as described above.

    Reference: https://arxiv.org/abs/1711.07064, figure 3; https://github.com/RaphaelMeudec/deblur-gan

    Example:
        >>> generator_model("paper", ngf=4, n_blocks=1).output_shape
        (None, None, None, 3)
    """
    row = require_buildable(GENERATORS, architecture, image_shape, ngf=ngf, n_blocks=n_blocks)
    blurred = keras.Input(image_shape, name="blurred", dtype="float32")
    restored = row.build(blurred, ngf, n_blocks, dtype, dropout)
    model = keras.Model(blurred, restored, name="generator")
    # Another architecture may hold arrays of the same shapes, so a file records this one.
    model.description = {"network": "generator", "architecture": architecture, "ngf": ngf, "n_blocks": n_blocks}
    return model


def meudec(blurred, ngf, n_blocks, dtype, dropout):
    """Returns the restored image of the `meudec` generator; see `generator_model`."""
    x = ReflectionPadding2D(3, name="stem_pad", dtype=dtype)(blurred)
    x = Conv2D(ngf, 7, name="stem_conv", dtype=dtype)(x)
    x = layers.BatchNormalization(name="stem_norm", dtype=dtype)(x)
    x = layers.Activation("relu", name="stem_relu", dtype=dtype)(x)

    for number, filters in enumerate((2 * ngf, 4 * ngf), 1):
        x = Conv2D(filters, 3, strides=2, padding="same", name=f"down{number}_conv", dtype=dtype)(x)
        x = layers.BatchNormalization(name=f"down{number}_norm", dtype=dtype)(x)
        x = layers.Activation("relu", name=f"down{number}_relu", dtype=dtype)(x)

    for number in range(1, n_blocks + 1):
        x = residual_block(x, 4 * ngf, layers.BatchNormalization, f"block{number}", dtype, dropout)

    for number, filters in enumerate((2 * ngf, ngf), 1):
        x = UpSampling2D(name=f"up{number}_nearest", dtype=dtype)(x)
        x = Conv2D(filters, 3, padding="same", name=f"up{number}_conv", dtype=dtype)(x)
        x = layers.BatchNormalization(name=f"up{number}_norm", dtype=dtype)(x)
        x = layers.Activation("relu", name=f"up{number}_relu", dtype=dtype)(x)

    return layers.Rescaling(0.5, name="restored", dtype="float32")(_corrected(blurred, x, dtype))


def paper(blurred, ngf, n_blocks, dtype, dropout):
    """Returns the restored image of the `paper` generator; see `generator_model`."""
    x = ReflectionPadding2D(3, name="stem_pad", dtype=dtype)(blurred)
    x = Conv2D(ngf, 7, name="stem_conv", dtype=dtype)(x)
    x = InstanceNormalization(name="stem_norm", dtype=dtype)(x)
    x = layers.Activation("relu", name="stem_relu", dtype=dtype)(x)

    for number, filters in enumerate((2 * ngf, 4 * ngf), 1):
        x = ZeroPadding2D(1, name=f"down{number}_pad", dtype=dtype)(x)
        x = Conv2D(filters, 3, strides=2, name=f"down{number}_conv", dtype=dtype)(x)
        x = InstanceNormalization(name=f"down{number}_norm", dtype=dtype)(x)
        x = layers.Activation("relu", name=f"down{number}_relu", dtype=dtype)(x)

    for number in range(1, n_blocks + 1):
        x = residual_block(x, 4 * ngf, InstanceNormalization, f"block{number}", dtype, dropout)

    for number, filters in enumerate((2 * ngf, ngf), 1):
        x = TransposedConv3x3Stride2(filters, name=f"up{number}_conv", dtype=dtype)(x)
        x = InstanceNormalization(name=f"up{number}_norm", dtype=dtype)(x)
        x = layers.Activation("relu", name=f"up{number}_relu", dtype=dtype)(x)

    return Clip(name="restored", dtype="float32")(_corrected(blurred, x, dtype))


def residual_block(x, filters, normalization, name, dtype="float32", dropout=0.5):
    """Applies pad, 3x3 convolution, norm, ReLU, dropout, pad, 3x3 convolution, norm, and adds the input.

    `x` and the result are symbolic tensors `(B, H, W, filters)`; `normalization` is the class of the layers that
    normalize, and `name` the prefix of all layer names.

    Example:
        >>> x = keras.Input((32, 32, 16))
        >>> residual_block(x, 16, InstanceNormalization, "block1").shape
        (None, 32, 32, 16)
    """
    y = ReflectionPadding2D(1, name=f"{name}_pad1", dtype=dtype)(x)
    y = Conv2D(filters, 3, name=f"{name}_conv1", dtype=dtype)(y)
    y = normalization(name=f"{name}_norm1", dtype=dtype)(y)
    y = layers.Activation("relu", name=f"{name}_relu", dtype=dtype)(y)
    y = layers.Dropout(dropout, name=f"{name}_dropout", dtype=dtype)(y)
    y = ReflectionPadding2D(1, name=f"{name}_pad2", dtype=dtype)(y)
    y = Conv2D(filters, 3, name=f"{name}_conv2", dtype=dtype)(y)
    y = normalization(name=f"{name}_norm2", dtype=dtype)(y)
    return layers.Add(name=f"{name}_add", dtype=dtype)([x, y])


def _corrected(blurred, x, dtype):
    """Adds the last convolution of `x` to the blurred image."""
    x = ReflectionPadding2D(3, name="head_pad", dtype=dtype)(x)
    x = Conv2D(3, 7, name="head_conv", dtype=dtype)(x)
    # The difference that restores a photograph is often too small to be added to 1 in half precision.
    x = layers.Activation("tanh", name="head_tanh", dtype="float32")(x)
    return layers.Add(name="head_add", dtype="float32")([x, blurred])
