"""The commands of `deblur-gan`: one file each, imported when that command is called or asked for its help.

The files in `scripts/` run the same commands.
"""

import contextlib
import functools
import importlib
import logging
import signal
import sys
import threading
import warnings
from pathlib import Path

import click

from deblur_gan import __version__
from deblur_gan.files import printable

# The commands that `deblur-gan --help` lists: name, file and function, one line. A dict is a group of commands.
_COMMANDS = {
    "restore": ("restore", "Restores blurred photographs."),
    "serve": ("serve", "Serves a page in a browser that restores photographs."),
    "train": ("train", "Trains a generator on pairs of blurred and sharp photographs."),
    "test": ("test", "Scores generators on pairs of photographs."),
    "blur": (
        {
            "photographs": ("blur_images", "Makes training pairs from sharp photographs."),
            "recordings": ("blur_recordings", "Makes training pairs from videos and folders of frames."),
        },
        "Makes training pairs: from photographs or from recordings.",
    ),
    "export": ("export", "Writes a generator for ONNX Runtime, OpenVINO, LiteRT, TensorFlow or PyTorch."),
    "samples": ("samples", "Makes a small data set of sample photographs."),
    "organize": ("organize", "Lays out the GoPro data set as folders of pairs."),
}


@contextlib.contextmanager
def _signals_as_ctrl_c():
    """Lets SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does; one that is ignored stays ignored."""

    def interrupt(number, _):
        raise KeyboardInterrupt(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Command(click.Command):
    """A command whose errors are lines, and that SIGTERM and SIGHUP end as Ctrl-C does."""

    def invoke(self, context):
        # Pillow's warnings about odd tags: our own messages have what matters.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)
        if hasattr(sys.stdout, "reconfigure"):
            # A name that the encoding of the output lacks is escaped, as Python does for errors.
            sys.stdout.reconfigure(errors="backslashreplace")
        with _signals_as_ctrl_c():
            try:
                return super().invoke(context)
            except (FloatingPointError, ImportError, OSError, ValueError) as error:  # BadImage and BadWeights, too
                raise click.ClickException(printable(error)) from None
            except MemoryError as error:  # NumPy adds how much it asked for
                raise click.ClickException(f"not enough memory ({printable(error)})") from None
            except KeyboardInterrupt:  # Click says the same, and exits with 1 as if something had failed
                click.echo("\nAborted!", err=True)
                raise SystemExit(130) from None


# The decorator of all commands.
command = functools.partial(
    click.command, cls=_Command, context_settings={"show_default": True, "help_option_names": ["-h", "--help"]}
)

# `restoring.ENSEMBLES`, without its imports.
ensemble_option = click.option(
    "--ensemble",
    type=click.Choice([1, 2, 4, 8]),
    default=1,
    help="Number of views whose mean is taken: mirrored and transposed copies. More is better and slower.",
)


class Scale(click.ParamType):
    """A working size as `restoring.deblur` accepts it: "auto" or a float."""

    name = "auto|NUMBER"

    def convert(self, value, param, ctx):
        if value == "auto":
            return value
        with contextlib.suppress(ValueError):
            if 0 < float(value) <= 4:
                return float(value)
        self.fail(f"{value!r}: must be auto, or a number above 0 and at most 4, such as 0.5", param, ctx)


scale_option = click.option(
    "--scale",
    type=Scale(),
    default="auto",
    help="Factor from the size of a photograph to the size at which it is restored. auto: a mean of "
    "long sides of 960 and 640 pixels, at most twice the own size. 1: as it is, as in papers.",
)


class _Group(click.Group):
    """A group that imports a command when it is called, and lists all without importing any."""

    def __init__(self, commands, **settings):
        super().__init__(**settings)
        self._entries = commands

    def list_commands(self, ctx):
        return list(self._entries)

    def get_command(self, ctx, name):
        if name not in self._entries:
            return None
        source, says = self._entries[name]
        if isinstance(source, dict):
            return _Group(source, name=name, help=says)
        return getattr(importlib.import_module(f"deblur_gan.commands.{source}"), source)

    def format_commands(self, ctx, formatter):
        with formatter.section("Commands"):
            formatter.write_dl([(name, says) for name, (_, says) in self._entries.items()])


main = _Group(
    _COMMANDS,
    name="deblur-gan",
    help="Restores photographs that were blurred by motion, and trains the networks that do it.\n\n"
    "`deblur-gan COMMAND --help` lists the options of a command.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
click.version_option(__version__, prog_name="deblur-gan")(main)


def home():
    """Returns the folder of `images/` and `weights/` by default: the clone that the package runs from, or this one."""
    clone = Path(__file__).resolve().parent.parent.parent
    return clone if (clone / "pyproject.toml").exists() else Path()
