"""The critics, as Keras functional graphs. Each reads from the image at the top to its score."""

from deblur_gan.architectures import CRITICS, require_buildable
from deblur_gan.backend import keras
from deblur_gan.networks.layers import Conv2D, Flatten, InstanceNormalization, ZeroPadding2D

layers = keras.layers


def critic_model(architecture="paper", ndf=64, image_shape=(256, 256, 3), dtype="float32"):
    """Builds the network that scores how sharp images look; a higher score is sharper.

    Args:
        architecture: "paper" or "meudec". `paper` is the PatchGAN: one score for each overlapping patch, no
            sigmoid, no batch statistics, fit for a gradient penalty. `meudec` ends in two dense layers and a
            sigmoid; it exists to read and continue from his `discriminator_*.h5`.
        ndf: int, channels after the first convolution.
        image_shape: `(H, W, 3)`. `paper` also takes None for height and width; `meudec` has weights for one size,
            whose sides are multiples of 16.
        dtype: Keras dtype policy of all layers except the last, which computes in float32.

    Returns:
        `keras.Model` named "critic": float32 `(B, H, W, 3)` in [-1, 1] to float32 scores, `(B, h, w, 1)`
        (35x35 for 256x256) for `paper` and `(B, 1)` in (0, 1) for `meudec`.

    Raises:
        ValueError: if an argument is not as described above.

    Reference: Isola et al., https://arxiv.org/abs/1611.07004 (PatchGAN); Gulrajani et al.,
        https://arxiv.org/abs/1704.00028 (why a critic has no batch normalization)

    Example:
        >>> critic_model("paper", ndf=4).output_shape
        (None, 35, 35, 1)
    """
    row = require_buildable(CRITICS, architecture, image_shape, ndf=ndf)
    image = keras.Input(image_shape, name="image", dtype="float32")
    model = keras.Model(image, row.build(image, ndf, dtype), name="critic")
    shape = list(image_shape) if row.fixed_size else [None, None, 3]
    model.description = {"network": "critic", "architecture": architecture, "ndf": ndf, "image_shape": shape}
    return model


def paper(image, ndf, dtype):
    """Returns the scores of the `paper` critic; see `critic_model`."""
    x = image
    for number, (filters, strides) in enumerate(((ndf, 2), (2 * ndf, 2), (4 * ndf, 2), (8 * ndf, 1)), 1):
        x = ZeroPadding2D(2, name=f"patch{number}_pad", dtype=dtype)(x)
        x = Conv2D(filters, 4, strides=strides, name=f"patch{number}_conv", dtype=dtype)(x)
        if number > 1:
            x = InstanceNormalization(name=f"patch{number}_norm", dtype=dtype)(x)
        x = layers.LeakyReLU(negative_slope=0.2, name=f"patch{number}_relu", dtype=dtype)(x)
    x = ZeroPadding2D(2, name="score_pad", dtype="float32")(x)
    return Conv2D(1, 4, name="score", dtype="float32")(x)


def meudec(image, ndf, dtype):
    """Returns the score of the `meudec` critic; see `critic_model`."""
    x = image
    for number, (filters, strides) in enumerate(((ndf, 2), (ndf, 2), (2 * ndf, 2), (4 * ndf, 2), (8 * ndf, 1)), 1):
        x = Conv2D(filters, 4, strides=strides, padding="same", name=f"conv{number}", dtype=dtype)(x)
        if number > 1:
            x = layers.BatchNormalization(name=f"norm{number}", dtype=dtype)(x)
        x = layers.LeakyReLU(negative_slope=0.2, name=f"relu{number}", dtype=dtype)(x)
    x = Conv2D(1, 4, padding="same", name="conv6", dtype=dtype)(x)
    x = Flatten(name="flatten", dtype=dtype)(x)
    x = layers.Dense(1024, activation="tanh", name="dense", dtype=dtype)(x)
    return layers.Dense(1, activation="sigmoid", name="score", dtype="float32")(x)
