"""Builds the networks of a run, with initial weights, and their optimizers."""

import contextlib
import random

import numpy as np

from deblur_gan.architectures import GENERATORS
from deblur_gan.backend import keras
from deblur_gan.networks import critic_model, generator_model, widened_weights
from deblur_gan.training import distributed, gradients
from deblur_gan.training.checkpoint import BadRun
from deblur_gan.training.gan import DeblurGAN
from deblur_gan.training.losses import PerceptualLoss
from deblur_gan.weights import BadWeights, describe, load_critic, load_generator, require_bounded


def build_gan(options):
    """Builds the networks of a run, with initial weights, and both optimizers.

    Args:
        options: `Options`; those about data and time are ignored.

    Returns:
        Compiled `DeblurGAN`, ready for `fit`.

    Raises:
        BadRun: if the batch cannot be shared among the GPUs or the processes, or a network in `init_from` or
            `init_critic_from` has another size.
        BadWeights: if a network would be too large to be saved, or one of those files cannot be read or holds another
            network.
        ValueError: if `vgg_weights` cannot be read, or PyTorch cannot compile this generator for `jit_compile`.

    Example:
        >>> from deblur_gan.training.options import Options
        >>> gan = build_gan(Options(ngf=2, n_blocks=1, ndf=2, crop_size=16, perceptual_weight=0))
        >>> gan.generator.output_shape
        (None, None, None, 3)
    """
    image_shape = (options.crop_size, options.crop_size, 3)
    sizes = {"architecture": options.generator, "ngf": options.ngf, "n_blocks": options.n_blocks}
    require_bounded(f"--ngf {options.ngf} --n_blocks {options.n_blocks}", {"network": "generator", **sizes})
    sizes = {"architecture": options.critic, "ndf": options.ndf, "image_shape": image_shape}
    require_bounded(f"--ndf {options.ndf} --crop_size {options.crop_size}", {"network": "critic", **sizes})
    policy = f"mixed_{options.mixed_precision}" if options.mixed_precision else "float32"
    with _seeded(options.seed), gradients.devices(has_shared_batches(options), building=True) as n_devices:
        if options.batch_size % n_devices:
            n_processes = distributed.size()
            sharing = f"devices of {n_processes} processes" if n_processes > 1 else "GPUs of --multi_gpu"
            raise BadRun(f"--batch_size {options.batch_size}: must be a multiple of the {n_devices} {sharing}")

        generator = generator_model(
            options.generator, options.ngf, options.n_blocks, dtype=policy, dropout=options.dropout
        )
        if options.init_from:
            generator.set_weights(_initial_weights(options, generator))
        else:
            for name in GENERATORS[options.generator].zero_layers:
                layer = generator.get_layer(name)
                layer.set_weights([np.zeros(weight.shape, np.float32) for weight in layer.weights])
        if options.freeze_normalization:
            for layer in generator.layers:
                # Keras then computes it as in inference, too.
                layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
        critic = critic_model(options.critic, options.ndf, image_shape, dtype=policy)
        if options.init_critic_from:
            critic.set_weights(_initial_critic_weights(options))

        perceptual_loss = _no_loss  # without weight the network of the loss need not be read
        if options.perceptual_weight:
            vgg_policy = "float32" if options.mixed_precision == "float16" else policy
            perceptual_loss = PerceptualLoss(options.vgg, options.vgg_weights, vgg_policy)
        gan = DeblurGAN(
            generator,
            critic,
            perceptual_loss,
            critic_updates=options.critic_updates,
            penalty_weight=options.penalty_weight,
            perceptual_weight=options.perceptual_weight,
            pixel_weight=options.pixel_weight,
            pixel_loss=options.pixel_loss,
            grid_weight=options.grid_weight,
            ema=options.ema,
            seed=options.seed,
        )
        # The paper does not print beta_1; its authors' code has 0.5.
        gan.compile(
            keras.optimizers.Adam(options.learning_rate, beta_1=0.5),
            keras.optimizers.Adam(options.learning_rate, beta_1=0.5),
            jit_compile=options.jit_compile or "auto",
        )
    return gan


def has_shared_batches(options):
    """Returns True if several devices share every batch."""
    return options.multi_gpu or distributed.size() > 1


@contextlib.contextmanager
def _seeded(seed):
    """Seeds Python's random numbers, from which Keras draws those of its layers; afterwards they are as before.

    `keras.utils.set_random_seed` does not restore them, and imports TensorFlow on every backend.
    """
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


def _initial_weights(options, generator):
    """Returns the weights in `init_from`, widened to the size of `generator`."""
    path = options.init_from
    found = _described(path, "generator", "--init_from")
    same = (found["architecture"], found["n_blocks"]) == (options.generator, options.n_blocks)
    if not same or options.ngf % found["ngf"]:
        raise BadRun(
            f"--init_from {path}: a generator of another size; add --generator {found['architecture']} "
            f"--ngf {found['ngf']} (or a multiple of it) --n_blocks {found['n_blocks']}"
        )
    return widened_weights(load_generator(path), generator, options.seed)


def _initial_critic_weights(options):
    """Returns the weights in `init_critic_from`, which must be of the critic that the options describe."""
    path = options.init_critic_from
    found = _described(path, "critic", "--init_critic_from")
    if (found["architecture"], found["ndf"]) != (options.critic, options.ndf):
        raise BadRun(
            f"--init_critic_from {path}: a critic of another size; add --critic {found['architecture']} "
            f"--ndf {found['ndf']}"
        )
    height, width, _ = found["image_shape"]
    if height not in (None, options.crop_size) or width != height:
        raise BadRun(
            f"--init_critic_from {path}: judges images of {height}x{width} only; --crop_size is {options.crop_size}"
        )
    return load_critic(path).get_weights()


def _described(path, network, flag):
    """Returns what a weight file holds, which must be this network."""
    found = describe(path)
    if found["network"] != network:
        raise BadWeights(f"{path}: contains a {found['network']}; give a {network} as {flag}")
    return found


def _no_loss(sharp, restored):
    return keras.ops.zeros(())
