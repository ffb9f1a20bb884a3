"""Generators made wider without changing the images that they return."""

import numpy as np

from deblur_gan.networks.layers import TransposedConv3x3Stride2


def widened_weights(narrow, wide, seed=0):
    """Makes the weights of a wider generator that returns the same images.

    Each channel becomes several equal channels, and the kernels that read them share the old kernel's weights. The
    shares are random: with equal shares, the copies of a channel would keep equal gradients for ever.

    Args:
        narrow: `keras.Model` from `generator_model`.
        wide: another, of the same architecture and blocks; its `ngf` is a multiple of that of `narrow`.
        seed: int, for the shares.

    Returns:
        List of float32 arrays for `wide.set_weights`.

    Reference: Chen et al., "Net2Net: Accelerating Learning via Knowledge Transfer", https://arxiv.org/abs/1511.05641

    Example:
        >>> narrow, wide = (generator_model("paper", ngf, n_blocks=1) for ngf in (4, 8))
        >>> wide.set_weights(widened_weights(narrow, wide))
    """
    rng = np.random.default_rng(seed)
    weights = []
    for narrow_layer, wide_layer in zip(narrow.layers, wide.layers, strict=True):
        for value, variable in zip(narrow_layer.get_weights(), wide_layer.weights, strict=True):
            value = np.tile(value, [new // old for new, old in zip(variable.shape, value.shape, strict=True)])
            if value.ndim == 4:
                inputs = 3 if isinstance(wide_layer, TransposedConv3x3Stride2) else 2
                n_old, n_outputs = narrow_layer.kernel.shape[inputs], value.shape[5 - inputs]
                n_copies = value.shape[inputs] // n_old
                shares = rng.dirichlet([1.0] * n_copies, size=(n_outputs, n_old))  # (n_outputs, n_old, n_copies)
                shares = np.moveaxis(shares, 2, 0).swapaxes(1, 2).reshape(n_copies * n_old, n_outputs)
                value = value * (shares if inputs == 2 else shares.T)
            weights.append(value.astype(np.float32))
    return weights
