"""What layers compute while TensorFlow trains them on a processor: the same numbers and derivatives in fewer passes."""

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

        outputs, *statistics = tf.map_fn(of_one, images, fn_output_signature=(image, statistic, statistic))
        return outputs, lambda upstream: gradient(images, upstream, *statistics)

    def gradient(images, upstream, means, variances):
        @tf.custom_gradient
        def pulled_back(images, upstream):
            def of_one(values):
                pixels, upstream, mean, variance = values
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

            pulled = tf.map_fn(of_one, (images, upstream, means, variances), fn_output_signature=image)
            return pulled, lambda direction: second(images, upstream, direction)

        return pulled_back(images, upstream)

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


@tf.custom_gradient
def without_first_row_and_column(images):
    """Crops a row at the top and a column at the left; TensorFlow's gradient of an index costs many times a padding."""
    return images[:, 1:, 1:], lambda upstream: tf.pad(upstream, ((0, 0), (1, 0), (1, 0), (0, 0)))
