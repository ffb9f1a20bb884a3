"""Trains DeblurGAN: python scripts/train.py --n_epochs 200"""

import os
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent

# The value of --resume without a folder.
LAST = "the last run"


def option(name, **kwargs):
    return click.option(f"--{name}", **{"show_default": True, **kwargs})


@click.command()
@option("n_epochs", type=click.IntRange(min=1), default=200, help="Epochs to train for, those before --resume counted.")
@option(
    "data_dir",
    type=click.Path(),
    multiple=True,
    show_default="images/train, unless --synthetic is given",
    help="Folder with pairs: A/ (blurred) and B/ (sharp), or blur/ and sharp/, or the sequences of GOPRO_Large/train. "
    "May be given several times.",
)
@option(
    "synthetic",
    type=click.Path(),
    multiple=True,
    help="Folder with sharp photographs, blurred on the fly by a random camera shake. With --data_dir, two of three "
    "samples are these, as for the paper's best model. May be given several times.",
)
@option(
    "val_dir",
    type=click.Path(),
    multiple=True,
    show_default="val/ beside a train/; without one, a tenth of the training scenes is set aside",
    help="Folder with pairs to validate with after every epoch; the best generator is chosen by them. Not the test "
    "set: a file must not be chosen on its exam.",
)
@option(
    "blur",
    type=click.Choice(["blur", "blur_gamma"]),
    default="blur",
    help="Blurred frames of GOPRO_Large: averaged as the camera stored them, or averaged in linear light.",
)
@option("n_images", type=click.IntRange(min=1), help="Train on so many pairs (and photographs) only, drawn by --seed.")
@option("n_val_images", type=click.IntRange(min=0), default=32, help="Validate with at most this many, evenly spread.")
@option("crop_size", type=click.IntRange(min=16), default=256, help="Height and width of a sample, in pixels.")
@option(
    "scale",
    type=click.FloatRange(0, 4, min_open=True),
    default=0.5,
    help="Factor to both sides of the images of the pairs before cropping, the paper's 0.5 for those of 1280x720. "
    "Images are never made smaller than a crop; smaller ones are enlarged to it.",
)
@option(
    "resize_or_crop",
    type=click.Choice(["crop", "resize"]),
    default="crop",
    help="A random crop (the paper), or the whole image squeezed into --crop_size (Meudec).",
)
@option(
    "batch_size",
    type=click.IntRange(min=1),
    default=4,
    help="Samples in a batch (the paper: 1, Meudec: 16). At full size a sample of 256x256 takes 0.6 to 0.8 GiB beside "
    "1 GiB for the networks (measured with TensorFlow on a CPU, float32); 4 leave a GPU of 12 GB some room.",
)
@option(
    "steps_per_epoch",
    type=click.IntRange(min=1),
    show_default="each pair once",
    help="Batches in an epoch.",
)
@option(
    "cache",
    type=click.Path(),
    help="Keep decoded images: 'memory', or a folder for them on disk. GOPRO_Large takes 3 GB at --scale 0.5.",
)
@option("n_workers", type=click.IntRange(min=1), default=4, help="Threads that prepare batches.")
@option("generator", type=click.Choice(["meudec", "paper"]), default="meudec", help="Architecture of the generator.")
@option("critic", type=click.Choice(["paper", "meudec"]), default="paper", help="Architecture of the critic.")
@option("ngf", type=click.IntRange(min=1), default=64, help="Channels after the generator's first convolution.")
@option("n_blocks", type=click.IntRange(min=1), default=9, help="Residual blocks of the generator.")
@option("ndf", type=click.IntRange(min=1), default=64, help="Channels after the critic's first convolution.")
@option(
    "dropout",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.5,
    help="Share of activations dropped in each residual block while training.",
)
@option("init_from", type=click.Path(), help="Weights of a generator to start from, for fine-tuning.")
@option("vgg", type=click.Choice(["vgg16", "vgg19"]), default="vgg16", help="Network of the perceptual loss.")
@option(
    "vgg_weights",
    type=click.Path(),
    default="imagenet",
    help="Its weights: a Keras .h5 file, or 'imagenet' to download them once.",
)
@option(
    "critic_updates",
    type=click.IntRange(min=0),
    default=5,
    help="Steps of the critic for each of the generator. 0: the generator learns alone, without adversarial loss.",
)
@option("penalty_weight", type=click.FloatRange(0), default=10.0, help="Weight of the gradient penalty.")
@option("perceptual_weight", type=click.FloatRange(0), default=100.0, help="Weight of the perceptual loss.")
@option("pixel_weight", type=click.FloatRange(0), default=0.0, help="Weight of the pixel loss.")
@option(
    "pixel_loss",
    type=click.Choice(["l1", "l2"]),
    default="l1",
    help="Error of the pixels, in [-1, 1]: l1, the mean absolute one, which changes little where it is unsure, or l2, "
    "the mean squared one, which PSNR measures.",
)
@option("learning_rate", type=click.FloatRange(0, min_open=True), default=1e-4, help="Of Adam, for both networks.")
@option(
    "schedule",
    type=click.Choice(["linear", "constant"]),
    default="linear",
    help="Learning rate over the epochs: constant for the first half, then linearly to zero (the paper), or constant "
    "(Meudec).",
)
@option(
    "ema",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    help="Validate and save a moving average of the generator's weights, with this momentum, such as 0.999. 0: do not.",
)
@option(
    "mixed_precision",
    type=click.Choice(["bfloat16", "float16"]),
    help="Compute in half precision where it is safe; weights stay float32.",
)
@option("multi_gpu", is_flag=True, help="Share every batch among all GPUs (TensorFlow and JAX).")
@option("seed", type=click.IntRange(min=0), default=0, help="For initial weights, dropout, samples, what is set aside.")
@option(
    "log_dir",
    type=click.Path(),
    default=str(ROOT / "weights"),
    show_default="weights/",
    help="Folder in which the run makes a folder of its own, named by date and time.",
)
@option("save_every", type=click.IntRange(min=1), default=10, help="Epochs between two saved generators and critics.")
@option(
    "checkpoint_minutes",
    type=click.FloatRange(0),
    default=10.0,
    help="Save the state to go on from after this many minutes, beside every end of an epoch.",
)
@option(
    "resume",
    type=click.Path(),
    is_flag=False,
    flag_value=LAST,
    help="Go on with the run in this folder (without a folder: the last one in --log_dir) from its last checkpoint, "
    "with its options. Only --n_epochs, --learning_rate, --schedule, --cache, --n_workers, --save_every and "
    "--checkpoint_minutes may be given anew.",
)
@click.pass_context
def train(context, resume, **flags):
    """Trains a generator against a critic on pairs of blurred and sharp photographs.

    What a run leaves behind is in a folder of its own below --log_dir: generator_best.h5 (by PSNR on the validation
    images), generator_{epoch}_{loss}.h5 and critic_{epoch}.h5, log.csv, curves.png, a picture of blurred | restored |
    sharp for every epoch, TensorBoard events, options.json, and state.npz, which --resume needs. A run that was
    killed at any moment goes on with --resume as if nothing had happened (bit for bit on the TensorFlow CPU backend
    with TF_DETERMINISTIC_OPS=1).

    The backend is Keras': KERAS_BACKEND=tensorflow, jax or torch. The exit code is 0 if all epochs were done, 1 if the
    run could not begin or had to stop, 2 if the command line makes no sense.
    """
    from deblur_gan.backend import start_backend

    start_backend(training=True)
    from deblur_gan import training
    from deblur_gan.photographs import BadImage
    from deblur_gan.weights import BadWeights

    for name in ("data_dir", "synthetic", "val_dir"):
        flags[name] = tuple(os.path.abspath(folder) for folder in flags[name])
    for name in ("init_from", "log_dir", "cache", "vgg_weights"):
        if flags[name] not in (None, "memory", "imagenet"):
            flags[name] = os.path.abspath(flags[name])
    try:
        if resume:
            default = click.core.ParameterSource.DEFAULT
            given = {name: value for name, value in flags.items() if context.get_parameter_source(name) != default}
            if resume == LAST:
                resume = training.last_run(flags["log_dir"])
                given.pop("log_dir", None)
            run_dir = training.resume(resume, given)
        else:
            if not flags["data_dir"] and not flags["synthetic"]:
                flags["data_dir"] = (str(ROOT / "images" / "train"),)
            run_dir = training.train(training.Options(**flags))
    except (BadImage, BadWeights, OSError, ValueError, training.Stopped) as error:
        raise click.ClickException(" ".join(str(error).split())) from None
    click.echo(f"Done: {run_dir}")


if __name__ == "__main__":
    train()
