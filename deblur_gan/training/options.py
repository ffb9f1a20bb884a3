"""Every option of a training run, once: its default, what it may be, what it does."""

import dataclasses
import math
import numbers
import operator
import os
import types
from dataclasses import dataclass

from deblur_gan.architectures import CRITICS, GENERATORS, MAX_BLOCKS
from deblur_gan.blur.ranges import KINDS
from deblur_gan.files import shortened

# The default data, in the layout of `deblur-gan samples` and `deblur-gan organize`.
DATA_DIR = os.path.join("images", "train")

# The networks of the perceptual loss, and the pixel losses: the mean absolute and the mean squared error.
VGG_NETWORKS = ("vgg16", "vgg19")
PIXEL_LOSSES = ("l1", "l2")

# The grid loss looks at windows of this many pixels, high and wide.
GRID_WINDOW = 32

# Every whole number must be below this, so that products and arrays of it do not overflow.
_LARGEST_INT = 2**31 - 1


class BadOption(ValueError):
    """An option out of its type or bounds; the message is one line that begins with its flag."""


def _option(default, text, **rules):
    """Makes a field of `Options` with its help text and rules.

    The rules are bounds (`at_least`, `above`, `at_most`, `below`), `choices`, `words` (allowed in addition to paths),
    `shown` (the default in the help) and `may_change` (a resumed run may have another value, as it changes the length
    or speed of training, or paths, but not the data).
    """
    return dataclasses.field(default=default, metadata={"help": text, **rules})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Holds all options of a training run, checked.

    Paths become absolute, from the working directory. Numbers of NumPy become Python's.

    Raises:
        BadOption: if a value is not of its type, out of its bounds or none of its choices, or if values do not fit
            each other.

    Example:
        >>> Options(ngf=32).ngf
        32
        >>> Options(ngf=0)
        Traceback (most recent call last):
        deblur_gan.training.options.BadOption: --ngf 0: must be at least 1
    """

    n_epochs: int = _option(200, "Epochs to train for, including those before --resume.", at_least=1, may_change=True)
    data_dir: tuple = _option(
        (),
        "Folder with pairs: A/ (blurred) and B/ (sharp), or blur/ and sharp/, or GoPro, REDS or RealBlur as unpacked; "
        "or a text file of paths. May be given several times.",
        shown="images/train, unless --synthetic is given",
        may_change=True,
    )
    synthetic: tuple = _option(
        (),
        "Folder with sharp photographs, blurred on the fly as --blur_mix says. With --data_dir, two of three samples "
        "are these, as for the paper's best model. May be given several times.",
        may_change=True,
    )
    blur_mix: str = _option(
        "handheld:1",
        "How photographs of --synthetic are blurred: kinds of blur with weights, such as handheld:4,paper:1.",
    )
    shares: str | None = _option(
        None,
        "Shares of the samples, such as 1:1:2: one whole number for each --data_dir in their order, then one for all "
        "photographs of --synthetic.",
        shown="every pair with equal chance; two of three samples from --synthetic",
    )
    val_dir: tuple = _option(
        (),
        "Folder with pairs to validate with after every epoch; the best generator is chosen by them. Not the test "
        "set: the best file must not be chosen by the images it is tested on. May be given several times.",
        shown="val/ next to train/; without one, a tenth of the training scenes is set aside",
        may_change=True,
    )
    blur: str = _option(
        "blur",
        "Blurred frames of GOPRO_Large: averaged as the camera stored them, or averaged in linear light.",
        choices=("blur", "blur_gamma"),
    )
    n_images: int | None = _option(
        None, "Train on only N pairs (and N photographs), drawn by --seed.", at_least=1, shown="all"
    )
    n_val_images: int = _option(32, "Validate with at most this many, evenly spread. 0: do not validate.", at_least=0)
    crop_size: int = _option(256, "Height and width of a sample, in pixels.", at_least=16)
    scale: float = _option(
        0.5,
        "Factor to both sides of the images of the pairs before cropping, the paper's 0.5 for those of 1280x720. "
        "Images are never made smaller than a crop; smaller ones are enlarged to it.",
        above=0,
        at_most=4,
    )
    working_scale: str = _option(
        "1",
        "Factor to both sides of a crop after the blur, or a range LOW:HIGH that each sample draws its factor from, "
        "such as 1:2. A generator then learns to restore at the enlarged size that `restore` works at.",
    )
    resize_or_crop: str = _option(
        "crop",
        "A random crop (the paper), or the whole image squeezed into --crop_size (Meudec).",
        choices=("crop", "resize"),
    )
    turn: bool = _option(
        False, "Turn samples by a random number of quarter turns, so that blur runs in all directions."
    )
    batch_size: int = _option(
        4,
        "Samples in a batch (the paper: 1, Meudec: 16). At full size a sample of 256x256 takes 0.6 to 0.8 GiB, in "
        "addition to 1 GiB for the networks (TensorFlow on a CPU, float32); 4 samples fit a GPU of 12 GB.",
        at_least=1,
    )
    steps_per_epoch: int | None = _option(None, "Batches in an epoch.", at_least=1, shown="each pair once")
    cache: str | None = _option(
        None,
        "Keep decoded images: 'memory', or a folder for them on disk. GOPRO_Large takes 3 GB at --scale 0.5.",
        words=("memory",),
        may_change=True,
    )
    n_workers: int = _option(4, "Threads that prepare batches.", at_least=1, at_most=256, may_change=True)
    generator: str = _option("meudec", "Architecture of the generator.", choices=GENERATORS)
    critic: str = _option("paper", "Architecture of the critic.", choices=CRITICS)
    ngf: int = _option(64, "Channels after the generator's first convolution.", at_least=1)
    n_blocks: int = _option(9, "Residual blocks of the generator.", at_least=1, at_most=MAX_BLOCKS)
    ndf: int = _option(64, "Channels after the critic's first convolution.", at_least=1)
    dropout: float = _option(
        0.5, "Share of activations dropped in each residual block while training.", at_least=0, below=1
    )
    init_from: str | None = _option(
        None,
        "Weights of a generator to start from, for fine-tuning. --ngf may be a multiple of that file's: every channel "
        "is then doubled (or more), which restores the same and can learn more.",
        words=(),
    )
    init_critic_from: str | None = _option(
        None, "Weights of a critic to start from, to continue adversarial training.", words=()
    )
    freeze_normalization: bool = _option(
        False,
        "Leave the batch normalization of a meudec generator as it is in --init_from, or without that as the identity: "
        "the statistics of small batches disturb brightness.",
    )
    vgg: str = _option("vgg16", "Network of the perceptual loss.", choices=VGG_NETWORKS)
    vgg_weights: str = _option(
        "imagenet", "Its weights: a Keras .h5 file, or 'imagenet' to download them once.", words=("imagenet",)
    )
    critic_updates: int = _option(
        5,
        "Steps of the critic for each of the generator. 0: only the generator learns, without adversarial loss.",
        at_least=0,
    )
    penalty_weight: float = _option(10.0, "Weight of the gradient penalty.", at_least=0)
    perceptual_weight: float = _option(100.0, "Weight of the perceptual loss.", at_least=0)
    pixel_weight: float = _option(0.0, "Weight of the pixel loss.", at_least=0)
    pixel_loss: str = _option(
        "l1",
        "Error of the pixels, in [-1, 1]: l1, the mean absolute error, or l2, the mean squared error, which PSNR "
        "measures.",
        choices=PIXEL_LOSSES,
    )
    grid_weight: float = _option(
        0.0,
        "Weight of the grid loss, against a woven pattern of 4 pixels in flat parts. docs/training.md has values.",
        at_least=0,
    )
    learning_rate: float = _option(1e-4, "Of Adam, for both networks.", above=0, may_change=True)
    schedule: str = _option(
        "linear",
        "Learning rate over the epochs: constant for the first half, then linearly to zero (the paper), or constant "
        "(Meudec).",
        choices=("linear", "constant"),
        may_change=True,
    )
    ema: float = _option(
        0.0,
        "Validate and save a moving average of the generator, with this momentum, such as 0.999. 0: do not.",
        at_least=0,
        below=1,
    )
    mixed_precision: str | None = _option(
        None, "Compute in half precision; weights and losses stay float32.", choices=("bfloat16", "float16")
    )
    jit_compile: bool = _option(
        False,
        "Compile the step: the generator's pass on PyTorch (which takes minutes, --dropout 0 and a C++ compiler), all "
        "of it by XLA on TensorFlow. JAX compiles anyway.",
        may_change=True,
    )
    multi_gpu: bool = _option(False, "Share every batch among all GPUs (TensorFlow and JAX).")
    seed: int = _option(0, "For initial weights, dropout, samples, what is set aside.", at_least=0, at_most=2**32 - 1)
    log_dir: str = _option(
        "weights", "Folder in which the run makes a folder of its own, named by date and time.", words=()
    )
    save_every: int = _option(10, "Epochs between two saved generators and critics.", at_least=1, may_change=True)
    checkpoint_minutes: float = _option(
        10.0,
        "Save the state for --resume after this many minutes, in addition to the end of every epoch.",
        at_least=0,
        may_change=True,
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))
        for name in ("data_dir", "synthetic", "val_dir"):
            _require_different(name, getattr(self, name))
        if not self.data_dir and not self.synthetic:
            object.__setattr__(self, "data_dir", (os.path.abspath(DATA_DIR),))
        _ = self.mixture, self.working_scale_range
        n_sources = len(self.data_dir) + bool(self.synthetic)
        if self.shares is not None and len(self.share_of_each) != n_sources:
            raise BadOption(
                f"--shares {self.shares}: must be {n_sources} numbers, one for each --data_dir then for --synthetic"
            )
        multiple = math.lcm(GENERATORS[self.generator].size_multiple, CRITICS[self.critic].size_multiple)
        if self.crop_size % multiple:
            raise BadOption(f"--crop_size {self.crop_size}: must be a multiple of {multiple}")
        if self.grid_weight and self.crop_size < GRID_WINDOW:
            raise BadOption(f"--crop_size {self.crop_size}: must be at least {GRID_WINDOW} for --grid_weight")
        if self.working_scale_range != (1, 1) and self.resize_or_crop == "resize":
            raise BadOption(f"--working_scale {self.working_scale}: is for crops; --resize_or_crop resize has none")
        if self.freeze_normalization and GENERATORS[self.generator].normalization != "batch":
            raise BadOption(f"--freeze_normalization: a {self.generator} generator has no batch normalization")
        if self.init_critic_from and not self.critic_updates:
            raise BadOption(f"--init_critic_from {self.init_critic_from}: --critic_updates 0 uses no critic")
        if not (self.perceptual_weight or self.pixel_weight or self.critic_updates):
            raise BadOption(
                "--critic_updates 0 without --perceptual_weight or --pixel_weight leaves nothing to learn from"
            )

    @property
    def mixture(self):
        """dict from kinds of blur to weights, for `blur.mixed_blur`."""
        mixture = {}
        for part in self.blur_mix.split(","):
            kind_of_blur, _, text = part.partition(":")
            try:
                weight = float(text)
            except ValueError:
                weight = math.nan
            if kind_of_blur not in KINDS or kind_of_blur in mixture or not 0 <= weight < math.inf:
                raise BadOption(
                    f"--blur_mix {self.blur_mix!r}: must be KIND:WEIGHT,..., each kind once of "
                    f"{', '.join(KINDS)}, with weights of at least 0; {part!r} is not"
                )
            mixture[kind_of_blur] = weight
        if not 0 < sum(mixture.values()) < math.inf:
            raise BadOption(f"--blur_mix {self.blur_mix!r}: must have a finite sum of weights above 0")
        return mixture

    @property
    def working_scale_range(self):
        """`(low, high)`, the floats of `working_scale`, for `TrainingSet`."""
        parts = self.working_scale.split(":")
        try:
            low, high = float(parts[0]), float(parts[-1])
        except ValueError:
            low = high = math.nan
        if len(parts) > 2 or not 0.25 <= low <= high <= 4:
            raise BadOption(
                f"--working_scale {self.working_scale!r}: must be a number or LOW:HIGH, from 0.25 to 4, such as 1:2"
            )
        return low, high

    @property
    def share_of_each(self):
        """tuple of int, the shares of the folders of pairs, then of all photographs; None without `shares`."""
        if self.shares is None:
            return None
        parts = self.shares.split(":")
        if not all(part.isascii() and part.isdigit() and len(part) < 5 and int(part) for part in parts):
            raise BadOption(f"--shares {self.shares!r}: must be whole numbers from 1 to 9999, such as 1:1:2")
        return tuple(int(part) for part in parts)


MAY_CHANGE = tuple(field.name for field in dataclasses.fields(Options) if "may_change" in field.metadata)


def kind(field):
    """Returns the type of an option: int, float, bool or str; tuple for a list of paths."""
    return field.type.__args__[0] if isinstance(field.type, types.UnionType) else field.type


def is_path(field):
    """Returns True if an option is a path or a list of paths."""
    return kind(field) is tuple or "words" in field.metadata


def _checked(field, value):
    """Returns the value of an option as it is stored; raises `BadOption`."""
    rules, wanted = field.metadata, kind(field)
    if value is None and isinstance(field.type, types.UnionType):
        return None
    if wanted is tuple:
        several = value if isinstance(value, tuple | list) else (value,)
        return tuple(_path(field.name, path) for path in several)
    if is_path(field):
        return value if isinstance(value, str) and value in rules["words"] else _path(field.name, value)

    begin = f"--{field.name} {shortened(repr(value), 80)}: must be"
    of_kind = {int: numbers.Integral, float: numbers.Real, bool: bool, str: str}[wanted]
    if not isinstance(value, of_kind) or (wanted is not bool and isinstance(value, bool)):
        raise BadOption(f"{begin} of type {wanted.__name__}")
    if "choices" in rules and value not in rules["choices"]:
        raise BadOption(f"{begin} one of {', '.join(rules['choices'])}")
    try:
        value = wanted(value)
    except OverflowError:  # an int that no float can hold
        value = math.inf
    if wanted is float and not math.isfinite(value):
        raise BadOption(f"{begin} finite")
    if wanted is int:
        rules = {"at_most": _LARGEST_INT, **rules}
    bounds = {"at_least": operator.ge, "above": operator.gt, "at_most": operator.le, "below": operator.lt}
    for rule, holds in bounds.items():
        if rule in rules and not holds(value, rules[rule]):
            raise BadOption(f"{begin} {rule.replace('_', ' ')} {rules[rule]}")
    return value


def _path(name, value):
    if not isinstance(value, str | os.PathLike) or not os.fspath(value) or "\0" in os.fspath(value):
        raise BadOption(f"--{name} {value!r}: must be a path")
    return os.path.abspath(value)


def _require_different(name, folders):
    """Raises `BadOption` if a folder is given twice, under the same name or two: its images would count twice."""
    known = {}
    for folder in folders:
        place = os.path.realpath(folder)
        if place in known:
            same = "" if known[place] == folder else f" (as {known[place]})"
            raise BadOption(f"--{name} {folder}: is given twice{same}; each folder must be given once")
        known[place] = folder
