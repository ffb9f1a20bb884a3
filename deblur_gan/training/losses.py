"""The terms of the training losses: mean scores, gradient penalty, grid loss, perceptual loss.

All images are float32 `(B, H, W, 3)` in [-1, 1]; all losses are float32 scalars.
"""

from deblur_gan.backend import keras
from deblur_gan.files import reason
from deblur_gan.training import gradients
from deblur_gan.training.options import GRID_WINDOW, VGG_NETWORKS
from deblur_gan.weights import hdf5

layers = keras.layers

# A window is flat in a channel if its standard deviation is below this many levels of 255.
FLAT = 4.0

# The mean of ImageNet in 0..255, which was subtracted from the images that Keras' VGG weights were trained on.
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)

# Both networks are the same up to here, and differ from the next convolution on.
_CONVOLUTIONS = (
    ("block1_conv1", 64),
    ("block1_conv2", 64),
    ("block2_conv1", 128),
    ("block2_conv2", 128),
    ("block3_conv1", 256),
    ("block3_conv2", 256),
    ("block3_conv3", 256),
)


def mean_score(scores):
    """Averages scores `(B, ...)` over images and patches, in float32."""
    return keras.ops.mean(keras.ops.cast(scores, "float32"))


def gradient_penalty(critic, images, scale=1.0):
    """Computes the gradient penalty, which is zero if the score's gradient with respect to each image has norm 1.

    `mean((|gradient of an image's mean score with respect to the image| - 1)^2)`, the norm taken over all pixels and
    channels of one image. For a linear critic `<w, x>` it is `(|w| - 1)^2`.

    Args:
        critic: callable, from images to scores `(B, ...)`; the score of an image must not depend on the others.
        images: tensor `(B, H, W, 3)`, for Wasserstein GANs points between sharp and restored images.
        scale: float or scalar tensor. Scores are multiplied by it and the gradient is divided by it in float32, so that
            the gradient of a critic that computes in float16 does not vanish.

    Returns:
        float32 scalar. Its gradient is finite even if the critic is constant.

    Example:
        >>> images = keras.ops.zeros((1, 2, 2, 3))
        >>> critic = lambda images: 2.0 * keras.ops.sum(images, axis=(1, 2, 3))
        >>> round(float(gradient_penalty(critic, images)), 3)  # the norm is 2 times the root of 12
        35.144

    Reference: Gulrajani et al., "Improved Training of Wasserstein GANs", https://arxiv.org/abs/1704.00028
    """

    def total_score(images):
        scores = keras.ops.cast(critic(images), "float32")
        # The mean score of each image, added over the images: their gradients do not mix.
        return scale * keras.ops.mean(scores) * keras.ops.cast(keras.ops.shape(images)[0], "float32"), ()

    _, gradient = gradients.of_inputs(total_score, images)
    gradient = keras.ops.cast(gradient, "float32") / scale
    # A plain square root has no derivative at zero.
    norm = keras.ops.sqrt(keras.ops.sum(keras.ops.square(gradient), axis=(1, 2, 3)) + 1e-12)
    return keras.ops.mean(keras.ops.square(norm - 1.0))


def grid_loss(sharp, restored):
    """Computes the energy of a pattern that repeats every 4 pixels in flat parts of the restored images only.

    Two upsampling layers can draw such a pattern. In each window of the difference, the mean of each of the sixteen
    phases of a 4x4 grid is compared with the mean of all pixels. Only windows count in which the sharp image is flat.

    Args:
        sharp, restored: tensors `(B, H, W, 3)`; height and width are at least `GRID_WINDOW`.

    Returns:
        float32 scalar in squared levels of 255, the mean over all windows, phases and channels; windows that are not
        flat count as 0. It is 0 for equal images.

    Example:
        >>> stripes = keras.ops.tile(keras.ops.array([1.0, 0.0, -1.0, 0.0]), 8)[None, None, :, None] / 127.5
        >>> round(float(grid_loss(keras.ops.zeros((1, 32, 32, 3)), stripes + keras.ops.zeros((1, 32, 32, 3)))), 3)
        0.5
    """
    n_rows, n_columns = (side // GRID_WINDOW for side in keras.ops.shape(sharp)[1:3])
    n_cells = GRID_WINDOW // 4

    def windows(images):
        images = 127.5 * images[:, : n_rows * GRID_WINDOW, : n_columns * GRID_WINDOW]
        return keras.ops.reshape(images, (-1, n_rows, n_cells, 4, n_columns, n_cells, 4, 3))

    is_flat = keras.ops.std(windows(sharp), axis=(2, 3, 5, 6), keepdims=True)[:, :, 0, :, :, 0] < FLAT
    phases = keras.ops.mean(windows(restored) - windows(sharp), axis=(2, 5))
    phases = phases - keras.ops.mean(phases, axis=(2, 4), keepdims=True)
    return keras.ops.mean(keras.ops.cast(is_flat, "float32") * keras.ops.square(phases))


def psnr(sharp, restored):
    """Computes the PSNR of each image as it would be written, clipped and rounded to 8 bits, in dB; 148 if equal."""

    def levels(images):
        return keras.ops.round(keras.ops.clip(127.5 * (images + 1.0), 0.0, 255.0)) / 255.0

    error = keras.ops.mean(keras.ops.square(levels(sharp) - levels(restored)), axis=(1, 2, 3))
    return -10.0 * keras.ops.log10(keras.ops.maximum(error, 10**-14.8))


class PerceptualLoss:
    """Computes the mean squared difference of two images in the features of a network trained on ImageNet.

    The features are those of `block3_conv3`. Each network has its own preprocessing, so that a weight of 100 has the
    same effect as in its source:

    * "vgg16" gets RGB in [-1, 1], as in Meudec's code.
    * "vgg19", the paper's choice, gets the input its weights were trained on, BGR in 0..255 minus the mean of ImageNet,
      and its features are divided by 127.5. The weights of the authors' VGG19 were trained on inputs of about the size
      of [-1, 1]; features grow with the input, and the division restores that size.

    Args:
        network: "vgg16" or "vgg19".
        weights: "imagenet" (downloaded by Keras once), or the path of a Keras `.h5` file of that network, with or
            without its top, or cut off anywhere after `block3_conv3`; or None for random weights, for tests.
        dtype: Keras dtype policy of the network.

    Raises:
        ValueError: if `network` is unknown, the weights cannot be downloaded, or the file cannot be read or is not of
            this network. The message is one line.

    Example:
        >>> loss = PerceptualLoss(weights=None)
        >>> images = keras.ops.zeros((1, 16, 16, 3))
        >>> float(loss(images, images))
        0.0

    Reference: Johnson et al., https://arxiv.org/abs/1603.08155; Simonyan and Zisserman,
        https://arxiv.org/abs/1409.1556; https://arxiv.org/abs/1711.07064, equation 4
    """

    def __init__(self, network="vgg16", weights="imagenet", dtype="float32"):
        if network not in VGG_NETWORKS:
            raise ValueError(f"perceptual network {network!r}: must be one of {', '.join(VGG_NETWORKS)}")
        self.network = network
        self.features = _features(network, dtype)
        if weights == "imagenet":
            self.features.set_weights(_download(network))
        elif weights is not None:
            self.features.set_weights(_weights_in(network, weights))
        self.features.trainable = False

    def __call__(self, sharp, restored):
        """Compares two batches; returns the mean over images, places and channels."""
        return keras.ops.mean(keras.ops.square(self._features_of(sharp) - self._features_of(restored)))

    def _features_of(self, images):
        if self.network == "vgg16":
            return keras.ops.cast(self.features(images), "float32")
        mean = keras.ops.convert_to_tensor(IMAGENET_MEAN_BGR, "float32")
        features = self.features(127.5 * (keras.ops.flip(images, axis=-1) + 1.0) - mean)
        return keras.ops.cast(features, "float32") / 127.5


def _features(network, dtype):
    image = x = keras.Input((None, None, 3), name="image", dtype="float32")
    for name, filters in _CONVOLUTIONS:
        if name in ("block2_conv1", "block3_conv1"):
            x = layers.MaxPooling2D(name=f"{name[:6]}_pool", dtype=dtype)(x)
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=name, dtype=dtype)(x)
    return keras.Model(image, x, name=network)


def _download(network):
    application = getattr(keras.applications, network.upper())
    try:
        full = application(include_top=False, weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception where a download fails
        raise ValueError(
            f"the ImageNet weights of {network} cannot be downloaded ({reason(error)}): "
            f"download {network}_weights_tf_dim_ordering_tf_kernels_notop.h5 elsewhere and name it with --vgg_weights"
        ) from error
    return [value for name, _ in _CONVOLUTIONS for value in full.get_layer(name).get_weights()]


def _weights_in(network, path):
    """Reads the convolutions in the order of the file, as Keras does: the names differ between its versions."""
    with hdf5.opened(path) as root:
        found = hdf5.layers(root)
        if found is None:
            raise ValueError(f"{path}: not a Keras .h5 file with the weights of {network}")
        values, channels = [], 3
        for number, (name, filters) in enumerate(_CONVOLUTIONS):
            expected = [(3, 3, channels, filters), (filters,)]
            shapes = [array.shape for array in found[number].arrays] if number < len(found) else "nothing"
            if shapes != expected:
                raise ValueError(f"{path}: not {network} up to block3_conv3: {name} needs {expected}, found {shapes}")
            values += [array.read() for array in found[number].arrays]
            channels = filters
    # The next layer distinguishes the two: VGG19 has a fourth convolution in its third block.
    following = found[len(_CONVOLUTIONS)].arrays[0].shape if len(found) > len(_CONVOLUTIONS) else ()
    if len(following) == 4:
        other = "vgg19" if following[-1] == 256 else "vgg16"
        if other != network:
            raise ValueError(f"{path}: holds {other}, not {network}")
    return values
