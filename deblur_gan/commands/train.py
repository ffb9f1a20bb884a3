"""`deblur-gan train`: trains a generator."""

import dataclasses
import signal

import click

from deblur_gan.commands import command, home
from deblur_gan.files import printable
from deblur_gan.training.options import DATA_DIR, MAY_CHANGE, BadOption, Options, is_path, kind

# The value of --resume without a folder.
LAST = "the last run"


def flag(field):
    """Makes the flag of an option."""
    rules = field.metadata
    settings = {"default": field.default, "show_default": rules.get("shown", True), "help": rules["help"]}
    if kind(field) is bool:
        settings["is_flag"] = True
    elif is_path(field):
        settings |= {"type": click.Path(), "multiple": kind(field) is tuple}
    elif "choices" in rules:
        settings["type"] = click.Choice(list(rules["choices"]))
    elif kind(field) is not str:
        range_of = click.IntRange if kind(field) is int else click.FloatRange
        lowest, highest = rules.get("at_least", rules.get("above")), rules.get("at_most", rules.get("below"))
        settings["type"] = range_of(lowest, highest, min_open="above" in rules, max_open="below" in rules)
    return click.option(f"--{field.name}", **settings)


def flags_of_options(command):
    for field in reversed(dataclasses.fields(Options)):
        command = flag(field)(command)
    return command


@command()
@flags_of_options
@click.option(
    "--resume",
    type=click.Path(),
    is_flag=False,
    flag_value=LAST,
    help="Resume the run in this folder (without a folder: the last one in --log_dir) from its last checkpoint, with "
    f"its options. Only {', '.join(f'--{name}' for name in MAY_CHANGE)} may be changed.",
)
@click.pass_context
def train(context, resume, **flags):
    """Trains a generator against a critic on pairs of blurred and sharp photographs.

    Each run writes into its own folder below --log_dir: generator_best.h5 (by PSNR on the validation images),
    generator_{epoch}_{loss}.h5 and critic_{epoch}.h5, log.csv, curves.png, a picture of blurred | restored | sharp for
    every epoch, TensorBoard events, options.json, and state.npz, which --resume needs. --resume continues a run that
    was killed at any moment as if it had not been interrupted (bit for bit on the TensorFlow CPU backend with
    TF_DETERMINISTIC_OPS=1). Ctrl-C and SIGTERM save a checkpoint first; a second Ctrl-C ends at once.

    KERAS_BACKEND selects the backend: tensorflow, jax or torch. On JAX several machines can train together;
    docs/machines.md has job files. The exit code is 0 if all epochs were done, 1 if the run could not start or had to
    stop, 2 if the command line is wrong, 130 after Ctrl-C, 143 after SIGTERM.
    """
    default = click.core.ParameterSource.DEFAULT
    given = {name: value for name, value in flags.items() if context.get_parameter_source(name) != default}
    # The default folders are those of the clone, whatever the working directory.
    log_dir = given.pop("log_dir", home() / Options.log_dir)
    if resume is None and not flags["data_dir"] and not flags["synthetic"]:
        given["data_dir"] = home() / DATA_DIR
    try:
        options = Options(**given, log_dir=log_dir)
    except BadOption as error:
        raise click.UsageError(str(error)) from None

    from deblur_gan.backend import start_backend

    start_backend(training=True)
    try:
        from deblur_gan.training import distributed, run
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error}; training also needs: pip install matplotlib tensorboard") from None
    from deblur_gan.training.run_folder import RunFolder

    try:
        if resume is not None:
            run_dir = RunFolder.last(log_dir).path if resume == LAST else resume
            run_dir = run.resume(run_dir, **given)
        else:
            run_dir = run.train(options)
    except run.Stopped as error:
        click.echo(printable(f"Error: {error}"), err=True)
        context.exit(128 + error.signal_number if error.signal_number else 1)
    except KeyboardInterrupt as error:  # during the check of the data or the building of the networks
        click.echo("Error: interrupted before the first step", err=True)
        context.exit(128 + (error.args[0] if error.args else signal.SIGINT))
    # BadRun, BadImage, BadWeights and OSError have one line each.
    except (OSError, ValueError) as error:
        raise click.ClickException(printable(" ".join(str(error).split()))) from None
    if distributed.is_main():
        click.echo(f"Done: {run_dir}")
