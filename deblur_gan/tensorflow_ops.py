"""What layers compute while TensorFlow trains them on a processor: the same numbers and derivatives in fewer passes.

The same up to rounding, of which the sums of the fused normalization have more: in float32 the gradient of a kernel of
`weights/generator.h5` is 0.08 % off that in float64 in the median, and 0.01 % with Keras' own operations.
"""

import functools

import tensorflow as tf


@functools.cache
def pay():
    """bool, whether these are worth taking: a GPU is fast with what XLA makes of Keras' own operations."""
    return not tf.config.list_physical_devices("GPU")


def instance_normalized(images, epsilon, plainly):
    """Gives each channel of each image mean 0 and variance 1; one fused operation for each image, and one back.

    Args:
        images: float tensor `(B, H, W, C)`; C is known.
        epsilon: float added to the variance.
        plainly: function that does the same in operations that can be differentiated twice, as the fused ones cannot.

    Returns:
        Tensor of the same shape and dtype.
    """
    n_channels = images.shape[-1]
    scale, unused = tf.ones(n_channels), tf.zeros(0)
    image, statistic = tf.TensorSpec(images.shape[1:], images.dtype), tf.TensorSpec(n_channels, tf.float32)

    def of_each(function, tensors, signature):
        # A part along the first axis is not copied.
        numbers = tf.range(tf.shape(tensors[0])[0])
        return tf.map_fn(lambda n: function(*(tensor[n] for tensor in tensors)), numbers, fn_output_signature=signature)

    @tf.custom_gradient
    def normalized(images):
        def of_one(pixels):
            outputs, _, _, mean, variance, _ = tf.raw_ops.FusedBatchNormV3(
                x=pixels[None],
                scale=scale,
                offset=tf.zeros(n_channels),
                mean=unused,
                variance=unused,
                epsilon=epsilon,
                is_training=True,
            )
            return outputs[0], mean, variance

        outputs, means, variances = of_each(of_one, [images], (image, statistic, statistic))

        @tf.custom_gradient
        def pulled_back(images, upstream):
            def of_one(pixels, upstream, mean, variance):
                return tf.raw_ops.FusedBatchNormGradV3(
                    y_backprop=upstream[None],
                    x=pixels[None],
                    scale=scale,
                    reserve_space_1=mean,
                    reserve_space_2=variance,
                    reserve_space_3=unused,
                    epsilon=epsilon,
                    is_training=True,
                )[0][0]

            pulled = of_each(of_one, [images, upstream, means, variances], image)
            return pulled, lambda direction: second(images, upstream, direction)

        return outputs, lambda upstream: pulled_back(images, upstream)

    def second(images, upstream, direction):
        with tf.GradientTape() as outer:
            outer.watch((images, upstream))
            with tf.GradientTape() as inner:
                inner.watch(images)
                outputs = plainly(images)
            pulled = inner.gradient(outputs, images, upstream)
        return outer.gradient(pulled, (images, upstream), direction)

    return normalized(images)


def mirrored(images, padding):
    """Pads height and width by mirroring, as `ReflectionPadding2D`.

    Args:
        images: tensor `(B, H, W, C)`; H and W are known.
        padding: int, rows and columns added at each side.

    Returns:
        Tensor `(B, H + 2 * padding, W + 2 * padding, C)`.
    """

    @tf.custom_gradient
    def padded(images):
        outputs = images
        for axis in (1, 2):
            n = images.shape[axis]
            places = [*range(padding, 0, -1), *range(n), *range(n - 2, n - 2 - padding, -1)]
            outputs = tf.gather(outputs, places, axis=axis)
        return outputs, folded

    def folded(upstream):
        """What was added at a side is folded back onto the pixels that it mirrors, all but the border itself."""
        for axis in (2, 1):
            inner = upstream.shape[axis] - 2 * (2 * padding + 1)
            sizes = [padding, 1, padding, inner, padding, 1, padding]
            before, first, left, middle, right, last, after = tf.split(upstream, sizes, axis)
            left, right = left + tf.reverse(before, [axis]), right + tf.reverse(after, [axis])
            upstream = tf.concat([first, left, middle, right, last], axis)
        return upstream

    return padded(images)


def mirrors(images, padding):
    """bool, whether `mirrored` takes images of this size: of known sides, on which no pixel is mirrored twice."""
    return all(side and side >= 2 * (padding + 1) for side in images.shape[1:3])


def convolved(images, kernel):
    """Convolves without padding, with stride 1; the gradient of the kernel is found in another way than TensorFlow's.

    Args:
        images: float tensor `(B, H, W, C)`; all but B are known.
        kernel: tensor `(k, k, C, D)` of the same dtype.

    Returns:
        Tensor `(B, H - k + 1, W - k + 1, D)`.
    """
    of_kernel = _with_exchanged_roles if kernel.shape[3] < _LANES else _by_matrix_products

    @tf.custom_gradient
    def convolve(images, kernel):
        def gradient(upstream):
            of_images = tf.nn.conv2d_transpose(upstream, kernel, tf.shape(images), 1, "VALID")
            return of_images, of_kernel(images, upstream, kernel.shape[0])

        return tf.nn.conv2d(images, kernel, 1, "VALID"), gradient

    return convolve(images, kernel)


def convolves(images, kernel):
    """bool, whether `convolved` is faster than TensorFlow's own gradient: measured, on a processor with AVX512."""
    channels, filters = kernel.shape[2:]
    wide = images.shape[1] is not None and (images.shape[2] or 0) >= 64
    return channels >= _LANES and (filters < _LANES or wide and images.dtype == tf.float32)


# Numbers that a register of a processor holds: oneDNN computes so many channels at once, wanted or not.
_LANES = 16


def _with_exchanged_roles(images, upstream, size):
    """The gradient of a kernel of few channels out, as that of one of few channels in."""
    channels, filters = images.shape[3], upstream.shape[3]
    around = (size - 1, size - 1)
    mirrored = tf.raw_ops.Conv2DBackpropFilter(
        input=tf.pad(upstream, ((0, 0), around, around, (0, 0))),
        filter_sizes=(size, size, filters, channels),
        out_backprop=images,
        strides=(1, 1, 1, 1),
        padding="VALID",
    )
    return tf.transpose(tf.reverse(mirrored, (0, 1)), (0, 1, 3, 2))


def _by_matrix_products(images, upstream, size):
    """The gradient of a kernel, a row of it in each product of two matrices of all pixels.

    In a list of all pixels, row by row, those that a place of the kernel meets lie a fixed way behind those of the
    result. TensorFlow's own is slow where many pixels of a row lie a power of two apart.
    """
    height, width, channels = images.shape[1:]
    below, beside, filters = height - upstream.shape[1], width - upstream.shape[2], upstream.shape[3]
    upstream = tf.reshape(tf.pad(upstream, ((0, 0), (0, below), (0, beside), (0, 0))), (-1, filters))
    pixels = tf.reshape(images, (-1, channels))
    n = tf.shape(pixels)[0] - beside
    neighbours = tf.concat([pixels[column : n + column] for column in range(size)], 1)
    rows = [tf.matmul(neighbours[row * width :], upstream[: n - row * width], transpose_a=True) for row in range(size)]
    return tf.reshape(tf.stack(rows), (size, size, channels, filters))


def cropped(images, cropping):
    """Crops height and width, as Keras' layer; TensorFlow's gradient of an index costs many times that of a padding.

    Args:
        images: tensor `(B, H, W, C)`.
        cropping: `((top, bottom), (left, right))`, int, rows and columns that are left out.

    Returns:
        Tensor `(B, H - top - bottom, W - left - right, C)`.
    """
    (top, bottom), (left, right) = cropping

    @tf.custom_gradient
    def crop(images):
        inner = images[:, top : -bottom or None, left : -right or None]
        return inner, lambda upstream: tf.pad(upstream, ((0, 0), *cropping, (0, 0)))

    return crop(images)
