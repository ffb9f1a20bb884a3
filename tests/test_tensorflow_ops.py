"""Layers that compute otherwise while TensorFlow trains them: the same numbers, first and second derivatives."""

import keras
import numpy as np
import pytest

from deblur_gan.networks import Conv2D, Cropping2D, InstanceNormalization, ReflectionPadding2D, generator_model

if keras.backend.backend() != "tensorflow":
    pytest.skip("the operations are TensorFlow's", allow_module_level=True)

import tensorflow as tf

from deblur_gan import tensorflow_ops

LAYERS = [
    (InstanceNormalization, {}),
    (ReflectionPadding2D, {"padding": 1}),
    (ReflectionPadding2D, {"padding": 3}),
    (Cropping2D, {"cropping": ((1, 0), (1, 0))}),
    (Cropping2D, {"cropping": ((0, 2), (1, 3))}),
]

pytestmark = pytest.mark.skipif(not tensorflow_ops.pay(), reason="a GPU takes Keras' own operations")


def derivatives(layer, images, training):
    """What a layer makes of images, gradients through it, and those of a function of these gradients."""
    with tf.GradientTape() as outer:
        outer.watch(images)
        with tf.GradientTape() as inner:
            inner.watch(images)
            outputs = layer(images, training=training)
            value = tf.reduce_sum(tf.sin(3 * outputs))
        first = inner.gradient(value, [images, *layer.trainable_variables])
        value = tf.add_n([tf.reduce_sum(gradient**3) for gradient in first])
    return outputs, *first, *outer.gradient(value, [images, *layer.trainable_variables])


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("n_images", [1, 3])
@pytest.mark.parametrize(("layer", "options"), LAYERS)
def test_training_computes_the_same(layer, options, n_images, jit_compile):
    layer = layer(**options)
    images = tf.constant(2 * np.random.default_rng(0).standard_normal((n_images, 8, 12, 5)) + 3, tf.float32)
    # As `fit` traces it: the number of images is not known.
    signature = [tf.TensorSpec((None, 8, 12, 5))]
    trained = tf.function(lambda images: derivatives(layer, images, True), signature, jit_compile=jit_compile)
    wanted = derivatives(layer, images, False)
    for found, expected in zip(trained(images), wanted, strict=True):
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_statistics_are_taken_in_float32(dtype):
    """In half precision the sum of 65,536 values of 100 would be lost, or infinite."""
    images = np.random.default_rng(0).integers(98, 103, (2, 256, 256, 3))  # all exact in half precision
    normalized = InstanceNormalization(dtype=dtype)(tf.constant(images, dtype), training=True)
    expected = InstanceNormalization()(tf.constant(images, tf.float32))
    assert normalized.dtype == dtype
    np.testing.assert_allclose(tf.cast(normalized, tf.float32), expected, atol=0.01)


def convolution(filters, size, images, dtype="float32"):
    keras.utils.set_random_seed(0)
    layer = Conv2D(filters, size, bias_initializer="normal", dtype=dtype)
    layer.build(images.shape)
    return layer


@pytest.mark.parametrize(("size", "filters", "width"), [(7, 3, 12), (3, 20, 64)], ids=["few channels out", "wide"])
def test_a_kernel_is_trained_by_the_same_derivatives(size, filters, width):
    images = tf.constant(np.random.default_rng(0).standard_normal((3, 9, width, 16)), tf.float32)
    layer = convolution(filters, size, images)
    assert tensorflow_ops.convolves(images, layer.kernel)
    traced = tf.function(lambda images: derivatives(layer, images, True), [tf.TensorSpec((None, 9, width, 16))])
    for found, expected in zip(traced(images), derivatives(layer, images, False), strict=True):
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("jit_compile", [None, True])
def test_sums_over_many_pixels_are_right_in_half_precision(jit_compile):
    """TensorFlow's own gradient of a bias gives a seventieth of a sum of 100,000 numbers in bfloat16."""
    rng = np.random.default_rng(0)
    images = tf.constant(rng.uniform(0, 1, (2, 70, 70, 16)), tf.bfloat16)
    upstream = tf.constant(rng.uniform(0, 1, (2, 64, 64, 3)), tf.bfloat16)
    half, exact = (convolution(3, 7, images, dtype) for dtype in ("mixed_bfloat16", "float32"))
    assert tensorflow_ops.convolves(images, half.kernel)

    def gradients(layer, images, upstream, training):
        with tf.GradientTape() as tape:
            tape.watch(images)
            outputs = layer(images, training=training)
        return tape.gradient(outputs, [images, *layer.trainable_variables], upstream)

    compute = tf.function(gradients, jit_compile=jit_compile)
    wanted = gradients(exact, tf.cast(images, tf.float32), tf.cast(upstream, tf.float32), False)
    for found, expected in zip(compute(half, images, upstream, True), wanted, strict=True):
        np.testing.assert_allclose(tf.cast(found, tf.float32), expected, rtol=0, atol=0.02 * np.abs(expected).max())


def test_pictures_too_small_to_be_mirrored_once_are_mirrored_too():
    images = tf.constant(np.random.default_rng(0).standard_normal((2, 2, 3, 4)), tf.float32)
    for found, expected in zip(*(derivatives(ReflectionPadding2D(1), images, t) for t in (True, False)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_only_training_on_a_processor_takes_them(monkeypatch):
    generator = generator_model("paper", ngf=4, n_blocks=1)

    def kinds(training):
        @tf.function(input_signature=[tf.TensorSpec((None, 32, 32, 3))])
        def gradients(images):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(generator(images, training=training))
            return tape.gradient(loss, generator.trainable_variables)

        graph = gradients.get_concrete_function().graph.as_graph_def()
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        return {node.op for node in nodes}

    slow, fast = {"MirrorPadGrad", "StridedSliceGrad"}, {"FusedBatchNormV3", "FusedBatchNormGradV3"}
    assert kinds(training=True) & (slow | fast) == fast
    assert kinds(training=False) & (slow | fast) == slow
    monkeypatch.setattr(tensorflow_ops, "pay", lambda: False)
    assert kinds(training=True) & (slow | fast) == slow


def test_a_generator_is_trained_by_the_same_gradients(monkeypatch):
    """Wide enough for each of the operations, as `fit` traces it."""
    generator = generator_model("paper", ngf=16, n_blocks=1, dropout=0.0)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 256, 256, 3)).astype(np.float32)

    def gradients():
        @tf.function(input_signature=[tf.TensorSpec((None, 256, 256, 3))])
        def traced(images):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.abs(generator(images, training=True) - images[:, ::-1]))
            return tape.gradient(loss, generator.trainable_variables)

        return traced(images)

    found = gradients()
    monkeypatch.setattr(tensorflow_ops, "pay", lambda: False)
    for weight, ours, theirs in zip(generator.trainable_variables, found, gradients(), strict=True):
        # Biases in front of a normalization have a gradient of rounding alone. Of that of a kernel there, normalization
        # leaves little, in which rounding is some thousandths, here and in Keras' own operations.
        if weight.path.endswith("kernel"):
            assert np.linalg.norm(ours - theirs) < 0.03 * np.linalg.norm(theirs), weight.path
