import keras
import numpy as np
import pytest

from deblur_gan.networks import (
    Clip,
    InstanceNormalization,
    ReflectionPadding2D,
    TransposedConv3x3Stride2,
    critic_model,
    generator_model,
    widened_weights,
)
from deblur_gan.training.gan import DeblurGAN


def output(model, x):
    return keras.ops.convert_to_numpy(model(x))


def images(*shape):
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def without_head(generator):
    head = generator.get_layer("head_conv")
    head.set_weights([np.zeros_like(weight) for weight in head.get_weights()])
    return generator


@pytest.mark.parametrize(
    ("build", "architecture", "count"),
    [
        (generator_model, "meudec", 11_399_171),
        (generator_model, "paper", 11_378_179),
        (critic_model, "meudec", 3_098_370),
        (critic_model, "paper", 2_764_737),
    ],
)
def test_published_parameter_counts(build, architecture, count):
    assert build(architecture).count_params() == count


@pytest.mark.parametrize("architecture", ["meudec", "paper"])
def test_layer_order_and_names_are_the_file_format(architecture):
    names = [layer.name for layer in generator_model(architecture, 4, 2).layers if "conv" in layer.name]
    assert names == [
        "stem_conv",
        "down1_conv",
        "down2_conv",
        "block1_conv1",
        "block1_conv2",
        "block2_conv1",
        "block2_conv2",
        "up1_conv",
        "up2_conv",
        "head_conv",
    ]


def test_generator_without_head_is_the_identity_or_half_of_it():
    x = images(2, 16, 24, 3)
    np.testing.assert_array_equal(output(without_head(generator_model("paper", 4, 1)), x), x)
    np.testing.assert_allclose(output(without_head(generator_model("meudec", 4, 1)), x), x / 2, atol=1e-7)


def test_paper_generator_stays_in_range():
    generator = generator_model("paper", 4, 1)
    head = generator.get_layer("head_conv")
    kernel, bias = head.get_weights()
    head.set_weights([kernel, np.full_like(bias, 5)])
    restored = output(generator, images(1, 16, 16, 3))
    assert restored.max() == 1 and restored.min() >= -1


def test_paper_normalizes_each_image_alone_and_meudec_uses_what_it_learnt():
    x = images(2, 16, 16, 3)
    for architecture in ("paper", "meudec"):
        generator = generator_model(architecture, 4, 1)
        np.testing.assert_allclose(output(generator, x)[:1], output(generator, x[:1]), atol=1e-5)


@pytest.mark.parametrize(("architecture", "blind"), [("paper", True), ("meudec", False)])
def test_paper_does_not_see_how_strong_contrasts_are(architecture, blind):
    """What it adds to a picture is the same when the picture is faded."""
    generator = generator_model(architecture, 4, 1)
    added = keras.Model(generator.input, generator.get_layer("head_tanh").output)
    vivid = images(1, 32, 32, 3)
    assert np.allclose(output(added, vivid), output(added, 0.25 * vivid + 0.3), atol=2e-3) == blind


@pytest.mark.parametrize("shape", [(8, 8), (12, 32), (64, 20)])
@pytest.mark.parametrize("architecture", ["meudec", "paper"])
def test_any_multiple_of_four_keeps_its_size(architecture, shape):
    assert output(generator_model(architecture, 2, 1), images(1, *shape, 3)).shape == (1, *shape, 3)


def test_paper_upsampling_places_pixels_like_the_authors_code():
    """PyTorch's ConvTranspose2d(3, stride=2, padding=1, output_padding=1): tap k of pixel i lands on 2 i + k - 1."""
    generator = generator_model("paper", 1, 1)
    transpose = generator.get_layer("up1_conv")
    x = images(1, 5, 7, 4)
    for row in range(3):
        for column in range(3):
            kernel = np.zeros((3, 3, 2, 4), np.float32)
            kernel[row, column] = 1
            transpose.set_weights([kernel, np.zeros(2, np.float32)])
            expected = np.zeros((1, 11, 15, 2), np.float32)
            expected[:, row : row + 10 : 2, column : column + 14 : 2] = x.sum(-1, keepdims=True)
            found = keras.ops.convert_to_numpy(transpose(x))
            np.testing.assert_allclose(found, expected[:, 1:, 1:], atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(2, 6, 9, 3), (1, 1, 1, 3)])
def test_transposed_convolution_is_that_of_keras_without_its_first_row_and_column(shape, training):
    reference = keras.layers.Conv2DTranspose(5, 3, strides=2, bias_initializer="normal", data_format="channels_last")
    x = images(*shape)
    expected = output(reference, x)[:, 1:, 1:]
    ours = TransposedConv3x3Stride2(5)
    assert tuple(ours.compute_output_shape(shape)) == expected.shape
    ours.build(shape)
    ours.set_weights(reference.get_weights())
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours(x, training=training)), expected, atol=1e-6)


def test_transposed_convolution_takes_only_what_it_honours():
    for option in ({"padding": "same"}, {"strides": 1}, {"activation": "relu"}, {"kernel_size": 5}):
        with pytest.raises((TypeError, ValueError), match="Unrecognized keyword"):
            TransposedConv3x3Stride2(5, **option)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the operation is TensorFlow's")
def test_no_operation_keeps_a_buffer_for_every_size():
    # Conv2DBackpropInput is TensorFlow's transposed convolution; on oneDNN it grows by 33 MB with each new size.
    import tensorflow as tf

    generator = generator_model("paper", ngf=4, n_blocks=1)
    traced = tf.function(generator).get_concrete_function(tf.TensorSpec((None, None, None, 3)))
    kinds = {operation.type for operation in traced.graph.get_operations()}
    assert "Conv2D" in kinds and "Conv2DBackpropInput" not in kinds


def test_dropout_only_while_training():
    generator = generator_model("paper", 4, 1)
    x = images(1, 16, 16, 3)
    np.testing.assert_array_equal(output(generator, x), output(generator, x))
    first, second = (keras.ops.convert_to_numpy(generator(x, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3


def test_reflection_padding_is_numpys():
    x = images(2, 5, 6, 3)
    expected = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(ReflectionPadding2D(3)(x)), expected)


def test_instance_normalization_is_group_normalization_of_single_channels():
    x = 3 * images(2, 9, 7, 5) + 1
    reference = keras.layers.GroupNormalization(groups=-1, epsilon=1e-5, center=False, scale=False)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(InstanceNormalization()(x)),
        keras.ops.convert_to_numpy(reference(x)),
        atol=1e-5,
    )


def test_clip():
    x = np.array([-3, -1, 0.25, 1, 2], np.float32)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(Clip()(x)), [-1, -1, 0.25, 1, 1])


def test_patch_critic_scores_patches_of_any_image():
    assert critic_model("paper", 4).output_shape == (None, 35, 35, 1)
    critic = critic_model("paper", 4, (None, None, 3))
    assert output(critic, images(1, 64, 96, 3)).shape == (1, 11, 15, 1)


def test_patch_critic_has_neither_sigmoid_nor_batch_statistics():
    critic = critic_model("paper", 4, (32, 32, 3))
    x = images(2, 32, 32, 3)
    np.testing.assert_allclose(output(critic, x)[:1], output(critic, x[:1]), atol=1e-5)
    score = critic.get_layer("score")
    kernel, bias = score.get_weights()
    score.set_weights([kernel, bias + 100])
    assert output(critic, x).min() > 50


def test_mixed_precision_adds_the_difference_in_float32():
    generator = without_head(generator_model("paper", 4, 1, dtype="mixed_bfloat16"))
    assert generator.get_layer("head_conv").compute_dtype == "bfloat16"
    x = images(1, 16, 16, 3)
    np.testing.assert_array_equal(output(generator, x), x)
    # A hundredth of what bfloat16 can add to 0.75, in each of the channels.
    difference = np.array([2e-5, -3e-5, 4e-5], np.float32)
    head = generator.get_layer("head_conv")
    head.set_weights([head.get_weights()[0], difference])
    x = np.full((1, 16, 16, 3), 0.75, np.float32)
    np.testing.assert_allclose(output(generator, x) - x, np.broadcast_to(difference, x.shape), rtol=0.01)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: generator_model("resnet"), "architecture='resnet': must be one of meudec, paper"),
        (lambda: generator_model(ngf=0), "ngf=0: must be a positive integer"),
        (lambda: generator_model(n_blocks=1.5), "n_blocks=1.5"),
        (lambda: generator_model(image_shape=(30, 32, 3)), "multiples of 4"),
        (lambda: generator_model(image_shape=(32, 32, 1)), r"must be \(height, width, 3\)"),
        (lambda: critic_model("meudec", image_shape=(None, None, 3)), "of meudec must be multiples of 16"),
    ],
)
def test_bad_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("architecture", ["meudec", "paper"])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_widened_generator_restores_the_same_with_channels_that_can_part(architecture, times):
    narrow, wide = (generator_model(architecture, ngf, 1, dropout=0.0) for ngf in (4, 4 * times))
    rng = np.random.default_rng(0)
    narrow.set_weights([weight + rng.uniform(0, 0.05, weight.shape) for weight in narrow.get_weights()])
    wide.set_weights(widened_weights(narrow, wide))
    x = images(2, 32, 24, 3)
    assert np.abs(output(narrow, x) - x).mean() > 0.01 and np.abs(output(narrow, x)).mean() < 0.99
    np.testing.assert_allclose(output(wide, x), output(narrow, x), atol=1e-4)
    if times > 1:
        # What reads two copies of one channel reads them in different shares, in both kinds of convolution.
        for name, read in (("block1_conv1", 2), ("up1_conv", 2 if architecture == "meudec" else 3)):
            kernel = np.moveaxis(wide.get_layer(name).get_weights()[0], read, 0)
            half = narrow.get_layer(name).kernel.shape[read]
            assert np.abs(kernel[0] - kernel[half]).max() > 0.01 * np.abs(kernel).max()


@pytest.mark.parametrize("architecture", ["meudec", "paper"])
def test_the_data_format_of_keras_json_does_not_matter(architecture):
    x = images(1, 16, 24, 3)
    ordinary, critic = generator_model(architecture, 4, 1), critic_model(architecture, 4, (32, 32, 3))
    keras.config.set_image_data_format("channels_first")
    try:
        ours, other_critic = generator_model(architecture, 4, 1), critic_model(architecture, 4, (32, 32, 3))
        ours.set_weights(ordinary.get_weights())
        np.testing.assert_allclose(output(ours, x), output(ordinary, x), atol=1e-6)
        assert other_critic.output_shape == critic.output_shape
    finally:
        keras.config.set_image_data_format("channels_last")


def gradients_of(generator, x):
    """Gradients of the sum of squares of a training pass, taken eagerly, as the backend in use does."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(generator(x, training=True)))
        return tape.gradient(loss, [variable.value for variable in generator.trainable_variables])
    if backend == "jax":
        import jax

        def loss(trainable):
            state = [variable.value for variable in generator.non_trainable_variables]
            restored, _ = generator.stateless_call(trainable, state, x, training=True)
            return keras.ops.sum(keras.ops.square(restored))

        return jax.grad(loss)([variable.value for variable in generator.trainable_variables])
    generator.zero_grad()
    keras.ops.sum(keras.ops.square(generator(x, training=True))).backward()
    return [variable.value.grad for variable in generator.trainable_variables]


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "openvino", reason="OpenVINO restores only")
@pytest.mark.parametrize("architecture", ["meudec", "paper"])
def test_an_eager_training_step_at_full_width(architecture):
    """Traced steps do not show what an operation refuses to do eagerly; so wide layers once took another path."""
    x = images(1, 16, 16, 3)
    generator = generator_model(architecture, 16, 1)
    for gradient, variable in zip(gradients_of(generator, x), generator.trainable_variables, strict=True):
        gradient = keras.ops.convert_to_numpy(gradient)
        assert gradient.shape == variable.shape and np.isfinite(gradient).all()
        # A bias before a normalization that subtracts the mean changes nothing.
        assert gradient.any() or variable.name == "bias"

    def no_perceptual_loss(sharp, restored):
        return keras.ops.zeros(())

    gan = DeblurGAN(generator, critic_model("paper", 4, (16, 16, 3)), no_perceptual_loss, pixel_weight=1.0)
    gan.compile(*(keras.optimizers.Adam(1e-3) for _ in range(2)), run_eagerly=True)
    before = generator.get_weights()[0].copy()
    gan.train_on_batch(x, x[:, ::-1])
    after = generator.get_weights()[0]
    assert np.isfinite(after).all() and (after != before).any()
