import importlib.util
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import QUICK_TO_COMPILE, ROOT, child_environment

from deblur_gan.images.pixels import to_uint8
from deblur_gan.networks import InstanceNormalization, critic_model, generator_model
from deblur_gan.training import gan as gan_module
from deblur_gan.training import gradients
from deblur_gan.training.gan import DeblurGAN
from deblur_gan.training.losses import PerceptualLoss, gradient_penalty
from deblur_gan.training.options import Options
from deblur_gan.training.run import build_gan

BACKEND = keras.backend.backend()


def pixel_loss(sharp, restored):
    return keras.ops.mean(keras.ops.square(sharp - restored))


def batch(n_images=2, size=32, seed=0):
    """Blurred and sharp images."""
    rng = np.random.default_rng(seed)
    return tuple(rng.uniform(-1, 1, (2, n_images, size, size, 3)).astype("float32"))


def tiny_gan(
    architecture="paper", ngf=4, dtype="float32", perceptual_loss=pixel_loss, compiled=False, rate=1e-3, **kwargs
):
    keras.utils.set_random_seed(5)
    generator = generator_model(architecture, ngf=ngf, n_blocks=1, dtype=dtype)
    critic = critic_model("paper", ndf=4, image_shape=(None, None, 3), dtype=dtype)
    gan = DeblurGAN(generator, critic, perceptual_loss, seed=7, **kwargs)
    # A few steps take less time than compiling them, but JAX compiles each operation of an eager step by itself.
    run_eagerly = not compiled and BACKEND != "jax"
    gan.compile(keras.optimizers.Adam(rate), keras.optimizers.Adam(rate), run_eagerly=run_eagerly)
    return gan


def weights_of(network):
    return [np.array(weight) for weight in network.get_weights()]


def same(before, after):
    """For each array, whether it is still the same to the bit."""
    return [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]


def run_on(backend, script, *arguments):
    """Starts `tests/training/<script>` as a process on a backend; `wait_for` gives its result."""
    return subprocess.Popen(
        [sys.executable, ROOT / "tests" / "training" / script, *map(str, arguments)],
        env=child_environment(KERAS_BACKEND=backend, XLA_FLAGS=QUICK_TO_COMPILE),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


def test_epsilon_is_uniform_and_differs_per_image():
    gan = tiny_gan()
    epsilon = keras.ops.convert_to_numpy(gan.draw_epsilon(np.zeros((4000, 1, 1, 3)), gan.seed_generator))
    assert epsilon.shape == (4000, 1, 1, 1)
    assert 0 <= epsilon.min() < 0.01 and 0.99 < epsilon.max() < 1
    assert abs(epsilon.mean() - 0.5) < 0.02 and abs(epsilon.var() - 1 / 12) < 0.01
    assert len(np.unique(epsilon)) > 3900
    assert not np.array_equal(
        epsilon, keras.ops.convert_to_numpy(gan.draw_epsilon(np.zeros((4000, 1, 1, 3)), gan.seed_generator))
    )


def test_critic_losses_are_the_paper_s():
    gan = tiny_gan(penalty_weight=3.0)
    restored, sharp = batch()
    epsilon = np.array([0.25, 1.0], "float32").reshape(2, 1, 1, 1)
    losses = gan.critic_losses(*map(keras.ops.convert_to_tensor, (sharp, restored, epsilon)))
    losses = {name: float(keras.ops.convert_to_numpy(value)) for name, value in losses.items()}

    def score(images):
        return keras.ops.convert_to_numpy(gan.critic(images)).mean(axis=(1, 2, 3))

    # The penalty by differences: the score's slope along its own gradient is the norm of the gradient.
    points = epsilon * sharp + (1 - epsilon) * restored
    _, directions = gradients.of_inputs(
        lambda images: (keras.ops.sum(keras.ops.mean(gan.critic(images), axis=(1, 2, 3))), ()),
        keras.ops.convert_to_tensor(points),
    )
    directions = keras.ops.convert_to_numpy(directions)
    directions /= np.sqrt((directions**2).sum(axis=(1, 2, 3), keepdims=True))
    slopes = (score(points + 0.01 * directions) - score(points - 0.01 * directions)) / 0.02
    penalty = np.mean((slopes - 1) ** 2)
    # LeakyReLU bends within the step, and float32 leaves 1e-7 of a score: 1e-5 of a slope.
    assert losses["gradient_penalty"] == pytest.approx(penalty, abs=2e-3)
    wasserstein = score(restored).mean() - score(sharp).mean()
    assert losses["critic_loss"] == pytest.approx(wasserstein + 3 * losses["gradient_penalty"], abs=1e-5)


def test_the_gradient_of_the_penalty_is_its_slope():
    """Holds only where the second derivative of instance normalization is right."""
    keras.utils.set_random_seed(0)
    critic = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(8, 4, strides=2),
            InstanceNormalization(),
            keras.layers.Activation("softplus"),  # smooth, unlike LeakyReLU, at whose bends the penalty jumps
            keras.layers.Conv2D(1, 4, strides=2),
        ]
    )
    points = keras.ops.convert_to_tensor(batch()[0])
    _, found = gradients.of_weights(lambda: (gradient_penalty(critic, points), ()), critic)
    found = [keras.ops.convert_to_numpy(gradient) for gradient in found]
    before = weights_of(critic)
    for number, gradient in enumerate(found):
        norm, slopes = np.linalg.norm(gradient), []
        if number in (1, 3):  # a constant added before a normalization, or to the score, changes nothing
            assert norm < 1e-6
            continue
        for distance in (0.01, -0.01):
            moved = [weight.copy() for weight in before]
            moved[number] += distance / norm * gradient
            critic.set_weights(moved)
            slopes.append(float(keras.ops.convert_to_numpy(gradient_penalty(critic, points))) / (2 * distance))
        assert sum(slopes) == pytest.approx(norm, rel=0.01)


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow", reason="compares all backends with plain TensorFlow")
def test_one_step_is_the_same_on_every_backend(tmp_path):
    import one_step
    import plain_step

    installed = [name for name in ("tensorflow", "jax", "torch") if _installed(name)]
    others = [run_on(name, "one_step.py", tmp_path / f"{name}.npz") for name in installed if name != BACKEND]
    if "torch" in installed:
        others.append(run_on("torch", "one_step.py", tmp_path / "compiled.npz", "compiled"))
        installed.append("compiled")
    one_step.main(tmp_path / f"{BACKEND}.npz")
    expected = plain_step.run()
    for process in others:
        wait_for(process)
    for name in installed:
        found = dict(np.load(tmp_path / f"{name}.npz"))
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, atol=1e-4, rtol=1e-4, err_msg=f"{name}: {key}")
            if key.endswith("change"):
                # A bias before a normalization has no gradient but rounding errors.
                tolerance = 1e-3 * np.abs(value).max() + 1e-6
                np.testing.assert_allclose(found[key], value, atol=tolerance, err_msg=f"{name}: {key}")


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "tensorflow" or not importlib.util.find_spec("torch"), reason="compares PyTorch's steps")
def test_a_compiled_step_leaves_frozen_statistics_alone(tmp_path):
    """Its gradient reads them after the step assigned its new state, which once raised an error."""
    for process in [
        run_on("torch", "one_step.py", tmp_path / f"{how}.npz", "frozen", how) for how in ("eager", "compiled")
    ]:
        wait_for(process)
    eager, compiled = (dict(np.load(tmp_path / f"{how}.npz")) for how in ("eager", "compiled"))
    for key, value in eager.items():
        np.testing.assert_allclose(compiled[key], value, atol=1e-4, rtol=1e-4, err_msg=key)


@pytest.mark.skipif(BACKEND != "torch", reason="about PyTorch's compiler")
def test_the_compiler_of_pytorch_is_imported_only_if_asked_for(monkeypatch):
    module = "deblur_gan.training.torch_compile"
    monkeypatch.delitem(sys.modules, module, raising=False)
    tiny = {"ngf": 2, "n_blocks": 1, "ndf": 2, "crop_size": 16, "perceptual_weight": 0}
    build_gan(Options(**tiny)).train_on_batch(*batch(size=16))
    assert module not in sys.modules
    with pytest.raises(ValueError, match="^--jit_compile: PyTorch compiles only generators without dropout"):
        build_gan(Options(**tiny, jit_compile=True))
    monkeypatch.setattr("torch.__version__", "2.6.0")
    with pytest.raises(ValueError, match=r"^--jit_compile: needs PyTorch 2.13 or newer, not 2.6.0$"):
        build_gan(Options(**tiny, jit_compile=True, dropout=0))


def _installed(backend):
    return importlib.util.find_spec(backend) is not None


@pytest.mark.parametrize("architecture", ["paper", "meudec"])
def test_the_generator_is_called_once_per_step(architecture, monkeypatch):
    gan = tiny_gan(architecture, critic_updates=3)
    calls = []
    forward = gradients.forward
    monkeypatch.setattr(gradients, "forward", lambda *args: calls.append(args) or forward(*args))
    blurred, sharp = batch()
    gan.train_on_batch(blurred, sharp)
    assert len(calls) == 1
    if architecture == "meudec":
        stem = gan.generator.get_layer("stem_norm")
        mean = keras.ops.convert_to_numpy(stem.moving_mean)
        # One update moves the mean from zero by 1 % of the way to the mean of this batch, in which the image is the
        # input of one convolution.
        reference = generator_model(architecture, ngf=4, n_blocks=1)
        reference.set_weights(_initial_weights(architecture))
        conv = keras.Model(reference.input, reference.get_layer("stem_conv").output)
        batch_mean = keras.ops.convert_to_numpy(conv(blurred)).mean(axis=(0, 1, 2))
        np.testing.assert_allclose(mean, 0.01 * batch_mean, atol=1e-6)
    assert int(keras.ops.convert_to_numpy(gan.critic_optimizer.iterations)) == 3
    assert int(keras.ops.convert_to_numpy(gan.generator_optimizer.iterations)) == 1


def _initial_weights(architecture):
    return tiny_gan(architecture).generator.get_weights()


def test_the_critic_update_leaves_the_generator_alone_and_the_other_way_round():
    blurred, sharp = batch()
    gan = tiny_gan(perceptual_loss=PerceptualLoss(weights=None), perceptual_weight=0.0)
    frozen = weights_of(gan.perceptual_loss.features)
    gan.generator_optimizer.learning_rate = 0.0
    generator, critic = weights_of(gan.generator), weights_of(gan.critic)
    gan.train_on_batch(blurred, sharp)
    assert all(same(generator, weights_of(gan.generator)))
    assert not any(same(critic, weights_of(gan.critic))[::2])

    gan.generator_optimizer.learning_rate, gan.critic_optimizer.learning_rate = 1e-3, 0.0
    generator, critic = weights_of(gan.generator), weights_of(gan.critic)
    gan.train_on_batch(blurred, sharp)
    assert not any(same(generator, weights_of(gan.generator))[::2])
    assert all(same(critic, weights_of(gan.critic)))
    assert all(same(frozen, weights_of(gan.perceptual_loss.features)))


def test_fit_reports_losses_and_the_psnr_of_held_out_pairs():
    gan = tiny_gan(critic_updates=1)
    blurred, sharp = batch(3)
    history = gan.fit(
        blurred, sharp, batch_size=3, verbose=0, validation_data=(blurred, sharp), validation_batch_size=2
    )
    losses = ["generator_loss", "adversarial_loss", "perceptual_loss", "pixel_loss", "grid_loss"]
    losses += ["critic_loss", "gradient_penalty"]
    assert set(history.history) == {"val_psnr", *losses, *(f"val_{name}" for name in losses)}
    restored = gan(blurred, training=False)
    wasserstein = np.diff(
        [keras.ops.convert_to_numpy(gan.critic(images)).mean() for images in (sharp, restored)]
    ).item()
    penalty = history.history["val_gradient_penalty"][0]
    assert penalty > 0
    assert history.history["val_critic_loss"][0] == pytest.approx(wasserstein + 10 * penalty, rel=1e-4)
    # The points of the penalty are the same each time, and what training draws does not depend on them.
    state = [keras.ops.convert_to_numpy(variable) for variable in gan.random_state]
    assert gan.evaluate(blurred, sharp, 2, verbose=0, return_dict=True)["gradient_penalty"] == penalty
    assert all(same(state, [keras.ops.convert_to_numpy(variable) for variable in gan.random_state]))
    restored = to_uint8(keras.ops.convert_to_numpy(restored)).astype(float)
    error = ((restored - to_uint8(sharp)) ** 2).mean(axis=(1, 2, 3))
    # The last batch holds one image and counts as one.
    assert history.history["val_psnr"][0] == pytest.approx(np.mean(10 * np.log10(255**2 / error)), abs=1e-3)
    total = history.history["adversarial_loss"][0] + 100 * history.history["perceptual_loss"][0]
    assert history.history["generator_loss"][0] == pytest.approx(total, rel=1e-4)


@pytest.mark.slow
def test_overfits_one_pair_past_30_db():
    rng = np.random.default_rng(0)
    sharp = keras.ops.convert_to_numpy(
        keras.ops.image.resize(rng.uniform(-1, 1, (1, 6, 6, 3)).astype("float32"), (32, 32), interpolation="bicubic")
    ).clip(-1, 1)
    blurred = (sharp + np.roll(sharp, 2, axis=2) + np.roll(sharp, 4, axis=2)) / 3
    gan = tiny_gan(ngf=8, critic_updates=1, perceptual_weight=1000.0, compiled=True, rate=5e-3)
    for layer in gan.generator.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    assert gan.evaluate(blurred, sharp, verbose=0, return_dict=True)["psnr"] < 25
    steps = 150
    gan.fit(np.repeat(blurred, steps, 0), np.repeat(sharp, steps, 0), batch_size=1, verbose=0)
    assert gan.evaluate(blurred, sharp, verbose=0, return_dict=True)["psnr"] > 30


@pytest.mark.slow
def test_saved_and_restored_training_goes_on_as_if_uninterrupted(tmp_path):
    blurred, sharp = batch()
    gan = tiny_gan("meudec", critic_updates=2, ema=0.9)
    gan.train_on_batch(blurred, sharp)
    gan.save_weights(tmp_path / "state.weights.h5")
    state = [keras.ops.convert_to_numpy(variable) for variable in gan.random_state]
    assert len(state) == 2

    again = tiny_gan("meudec", critic_updates=2, ema=0.9)
    again.train_on_batch(sharp, blurred)
    again.load_weights(tmp_path / "state.weights.h5")
    for variable, value in zip(again.random_state, state, strict=True):
        variable.assign(value)

    gan.train_on_batch(blurred, sharp)
    again.train_on_batch(blurred, sharp)
    for network in ("generator", "critic", "averaged_generator"):
        for a, b in zip(weights_of(getattr(gan, network)), weights_of(getattr(again, network)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_one_learning_rate_sets_both():
    gan = tiny_gan()
    keras.callbacks.LearningRateScheduler(lambda epoch: 0.25).set_model(gan)
    gan.optimizer.learning_rate = 0.25
    for optimizer in (gan.generator_optimizer, gan.critic_optimizer):
        assert float(keras.ops.convert_to_numpy(optimizer.learning_rate)) == 0.25


def one_layer_gan(critic_layer, **kwargs):
    image = keras.Input((None, None, 3))
    generator = keras.Model(image, keras.layers.Conv2D(3, 1)(image))
    critic = keras.Model(image, keras.layers.Conv2D(1, 4, dtype="float32")(critic_layer(image)))
    gan = DeblurGAN(generator, critic, pixel_loss, **kwargs)
    gan.compile(keras.optimizers.SGD(), keras.optimizers.SGD(), run_eagerly=True)
    return gan


def test_each_critic_update_draws_its_points_and_hands_on_the_loss_scale(monkeypatch):
    taken = []

    def spy(critic, images, scale):
        taken.append((keras.ops.convert_to_numpy(images), float(keras.ops.convert_to_numpy(scale))))
        return gradient_penalty(critic, images, scale)

    monkeypatch.setattr(gan_module, "gradient_penalty", spy)
    gan = one_layer_gan(keras.layers.Conv2D(4, 3, dtype="mixed_float16"), critic_updates=3)
    gan.critic_optimizer.dynamic_scale.assign(2.0**10)
    gan.train_on_batch(*batch())
    points, scales = zip(*taken, strict=True)
    assert len(np.unique(points, axis=0)) == len(points) == 3
    assert scales == (2.0**10,) * 3


def test_the_critic_is_always_called_in_inference_mode():
    modes = []

    class Spy(keras.layers.Layer):
        def call(self, inputs, training=False):
            modes.append(training)
            return inputs

    gan = one_layer_gan(Spy(), critic_updates=1)
    modes.clear()
    for step in (gan.train_on_batch, gan.test_on_batch):
        step(*batch())
        assert len(modes) >= 3 and not any(modes)  # for the scores, for the penalty, for the generator
        modes.clear()


def test_the_moving_average_follows_weights_and_batch_statistics():
    """Nothing of the random beginning is left after the first step, which copies; later ones keep more and more."""
    gan = tiny_gan("meudec", ema=0.3, critic_updates=0, rate=0.01)
    assert all(same(weights_of(gan.generator), weights_of(gan.averaged_generator)))
    expected = []
    for momentum in (0, 1 / 10, 2 / 11, 3 / 12, 0.3, 0.3):
        gan.train_on_batch(*batch())
        current = weights_of(gan.generator)
        expected = [momentum * a + (1 - momentum) * b for a, b in zip(expected or current, current, strict=True)]
        for found, value in zip(weights_of(gan.averaged_generator), expected, strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)
    assert len(expected) == len(gan.generator.trainable_variables) + 2 * 7  # mean and variance of seven normalizations
    assert not any(same(weights_of(gan.generator), weights_of(gan.averaged_generator)))


def test_without_a_moving_average_the_generator_stands_for_it():
    gan = tiny_gan()
    assert gan.averaged_generator is gan.generator


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)])
def test_mixed_precision_trains(dtype):
    blurred, sharp = batch()
    gan = tiny_gan(dtype=dtype, critic_updates=1)
    scaled = isinstance(gan.generator_optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == isinstance(gan.critic_optimizer, keras.optimizers.LossScaleOptimizer) == (dtype == "mixed_float16")
    generator, critic = weights_of(gan.generator), weights_of(gan.critic)
    # The first ones in float16 may find the scale too high, lower it and leave the weights alone.
    for _ in range(8 if scaled else 1):
        logs = gan.train_on_batch(blurred, sharp, return_dict=True)
        assert all(np.isfinite(value) for value in logs.values())
    assert not any(same(generator, weights_of(gan.generator))[::2])
    assert not any(same(critic, weights_of(gan.critic))[::2])


def test_loss_scaling_reaches_through_the_penalty():
    """Where float16 holds nothing of a critic's slopes, both derivatives must be scaled for it to learn from them.

    The slope of the mean score with respect to what the last layer is given is below 2^-25, half of the smallest
    float16, so it is cast to exactly zero on every processor, and all gradients with it. Of a penalty's gradient with
    respect to the slopes, which is below 2, the division by the scale leaves less than that half as well unless it is
    itself scaled. A zero in place of a gradient is an error of 1; eleven bits of mantissa, however they are summed,
    leave a fraction of that.
    """
    scale = 2.0**30
    points = keras.ops.convert_to_tensor(batch()[0])

    def gradient_of(dtype, inner, outer):
        critic = tiny_gan(dtype=dtype).critic
        kernel, bias = critic.get_layer("score").get_weights()
        # Each input meets at most all 4x4 taps of a kernel, and the mean is over 25 patches or more.
        assert np.prod(critic(points).shape[1:]) >= 25
        critic.get_layer("score").set_weights([kernel / np.abs(kernel).max() * 2.0**-26, bias])
        _, found = gradients.of_weights(lambda: (outer * gradient_penalty(critic, points, inner), ()), critic)
        return np.concatenate([keras.ops.convert_to_numpy(g).astype("float64").ravel() / outer for g in found])

    exact = gradient_of("float32", 1.0, 1.0)
    assert np.linalg.norm(exact) > 0
    for inner, outer in ((1.0, 1.0), (1.0, scale), (scale, 1.0)):
        assert not gradient_of("mixed_float16", inner, outer).any(), (inner, outer)
    error = np.linalg.norm(gradient_of("mixed_float16", scale, scale) - exact) / np.linalg.norm(exact)
    assert error < 0.5


@pytest.mark.slow
@pytest.mark.skipif(BACKEND == "torch", reason="Keras trains on several devices with TensorFlow and JAX")
def test_two_devices_take_the_step_of_one(tmp_path):
    """The same step, and all batches of a generator, each once: the sum of their powers of two tells which."""
    wait_for(run_on(BACKEND, "two_devices.py", tmp_path / "result.npz"))
    found = dict(np.load(tmp_path / "result.npz"))
    names = [name[4:] for name in found if name.startswith("one_")]
    assert len(names) > 10
    for name in names:
        np.testing.assert_allclose(found[f"two_{name}"], found[f"one_{name}"], atol=1e-5, rtol=1e-4, err_msg=name)
    assert found["steps"] == 8 and found["left"] == 0
    assert found["seen"].tolist() == [sum(2.0**-k for k in range(4)) / 4, sum(2.0**-k for k in range(4, 8)) / 4]


def test_several_devices_are_refused_on_pytorch_in_one_line(monkeypatch):
    monkeypatch.setattr(gradients, "_BACKEND", "torch")
    monkeypatch.delattr(keras.distribution, "list_devices")  # fails on PyTorch
    with pytest.raises(ValueError, match="^--multi_gpu: several GPUs need KERAS_BACKEND=tensorflow or jax$"):
        build_gan(Options(data_dir=("images",), multi_gpu=True))


@pytest.mark.parametrize(("pixel_loss", "expected"), [("l1", 0.5), ("l2", 0.25)])
def test_pixel_loss_of_a_known_offset(pixel_loss, expected):
    gan = tiny_gan(critic_updates=0, pixel_loss=pixel_loss, pixel_weight=3.0, perceptual_weight=0.0)
    losses = gan.generator_losses(keras.ops.full((1, 16, 16, 3), 0.25), keras.ops.full((1, 16, 16, 3), -0.25))
    assert float(losses["pixel_loss"]) == expected
    assert float(losses["generator_loss"]) == 3 * expected


def test_refuses_arguments_out_of_range():
    for argument in (
        {"critic_updates": -1},
        {"penalty_weight": -1.0},
        {"pixel_weight": -0.5},
        {"grid_weight": -1},
        {"pixel_loss": "l3"},
        {"ema": 1.0},
    ):
        (name, value), *_ = argument.items()
        with pytest.raises(ValueError, match=f"{name}={value!r}"):
            tiny_gan(**argument)
