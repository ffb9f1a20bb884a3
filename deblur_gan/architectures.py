"""Lists the architectures in one table: what builds them, which arrays they hold, which image sizes they take.

A new generator is a function in `networks/generators.py` and a row of `GENERATORS`. This module imports neither Keras
nor NumPy, so that the command line reads the names at once.
"""

import importlib
from collections.abc import Callable
from typing import NamedTuple

# The residual blocks of the deepest generator that is built, saved or loaded. Keras builds it in three seconds.
MAX_BLOCKS = 64


class Architecture(NamedTuple):
    """Describes a generator or a critic.

    Attributes:
        builder: str, "module:function". The function takes the symbolic input and the sizes, and returns the output.
        shapes: function from the sizes, `ngf` and `n_blocks` or `ndf` and `image_shape`, to the shapes of the weights:
            a list with one entry for each layer, the list of the shapes of its arrays. The order matters only among
            layers of one kind. Weight files are identified and checked by it.
        size_multiple: int, height and width must be multiples of it.
        smallest_side: int, height and width must be at least this.
        normalization: "batch" or "instance".
        zero_layers: tuple of str, the layers that are zero when training begins.
        fixed_size: bool, True if the weights fit one image size.
    """

    builder: str
    shapes: Callable
    size_multiple: int = 1
    smallest_side: int = 1
    normalization: str = "instance"
    zero_layers: tuple = ()
    fixed_size: bool = False

    def build(self, *args):
        """Calls the function that `builder` names."""
        module, _, function = self.builder.partition(":")
        return getattr(importlib.import_module(module), function)(*args)


def _convolution(size, inputs, outputs):
    return [(size, size, inputs, outputs), (outputs,)]


def _batch_normalization(channels):
    return 4 * [(channels,)]


def _outer_and_inner(ngf, n_blocks):
    """Lists (kernel size, input channels, output channels): before the upsampling convolutions, these, the last one."""
    down = [(7, 3, ngf), (3, ngf, 2 * ngf), (3, 2 * ngf, 4 * ngf)]
    return down + 2 * n_blocks * [(3, 4 * ngf, 4 * ngf)], [(3, 4 * ngf, 2 * ngf), (3, 2 * ngf, ngf)], (7, ngf, 3)


def _meudec_shapes(ngf, n_blocks):
    first, up, last = _outer_and_inner(ngf, n_blocks)
    convolutions = [*first, *up, last]
    return [_convolution(*sizes) for sizes in convolutions] + [_batch_normalization(n) for *_, n in convolutions[:-1]]


def _paper_shapes(ngf, n_blocks):
    first, up, last = _outer_and_inner(ngf, n_blocks)
    # The kernel of a transposed convolution holds its output channels before its input channels.
    transposed = [[(size, size, outputs, inputs), (outputs,)] for size, inputs, outputs in up]
    return [_convolution(*sizes) for sizes in first] + transposed + [_convolution(*last)]


def _meudec_critic_shapes(ndf, image_shape):
    channels = [3, ndf, ndf, 2 * ndf, 4 * ndf, 8 * ndf, 1]
    height, width, _ = image_shape
    return [
        *(_convolution(4, *pair) for pair in zip(channels, channels[1:], strict=False)),
        *(_batch_normalization(n) for n in channels[2:-1]),
        [(-(-height // 16) * -(-width // 16), 1024), (1024,)],
        [(1024, 1), (1,)],
    ]


def _paper_critic_shapes(ndf, image_shape):
    channels = [3, ndf, 2 * ndf, 4 * ndf, 8 * ndf, 1]
    return [_convolution(4, *pair) for pair in zip(channels, channels[1:], strict=False)]


GENERATORS = {
    # Two strided convolutions halve the image twice, and the reflection padding needs two pixels after that.
    "meudec": Architecture(
        "deblur_gan.networks.generators:meudec", _meudec_shapes, size_multiple=4, smallest_side=8, normalization="batch"
    ),
    # It starts as the identity, which is better than a random picture added to the blurred one.
    "paper": Architecture(
        "deblur_gan.networks.generators:paper",
        _paper_shapes,
        size_multiple=4,
        smallest_side=8,
        zero_layers=("head_conv",),
    ),
}

CRITICS = {
    "paper": Architecture("deblur_gan.networks.critics:paper", _paper_critic_shapes),
    "meudec": Architecture(
        "deblur_gan.networks.critics:meudec",
        _meudec_critic_shapes,
        size_multiple=16,
        normalization="batch",
        fixed_size=True,
    ),
}

NETWORKS = {"generator": GENERATORS, "critic": CRITICS}


def require_buildable(rows, architecture, image_shape, **counts):
    """Returns the row of an architecture if the arguments of `generator_model` or `critic_model` are valid.

    H and W of `image_shape` may be None, unless the architecture has a fixed size. `counts` must be positive integers.
    Raises ValueError if an argument is something else.
    """
    if architecture not in rows:
        raise ValueError(f"architecture={architecture!r}: must be one of {', '.join(rows)}")
    row = rows[architecture]
    if len(image_shape) != 3 or image_shape[2] != 3:
        raise ValueError(f"image_shape={tuple(image_shape)}: must be (height, width, 3)")
    if any(
        row.fixed_size if side is None else side % row.size_multiple or side < row.smallest_side
        for side in image_shape[:2]
    ):
        raise ValueError(
            f"image_shape={tuple(image_shape)}: height and width of {architecture} must be multiples of "
            f"{row.size_multiple} and at least {row.smallest_side}{'' if row.fixed_size else ', or None'}"
        )
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"{name}={count!r}: must be a positive integer")
    return row
