"""Times training and restoring on this machine: python scripts/benchmark.py"""

import itertools
from pathlib import Path

import click

from deblur_gan.training.options import Options

# Defaults of each mode.
STEP = {"ngf": (64,), "image_size": (256,), "batch_size": (1,), "precision": ("float32",)}
TABLE = {
    "ngf": (32, 64),
    "image_size": (128, 256),
    "batch_size": (1, 8),
    "precision": ("float32", "mixed_bfloat16"),
}
AGAINST = STEP | {"precision": TABLE["precision"]}


def several(name, type, text):
    """Adds an option that may be given several times, and has a default for each mode."""
    by_mode = ((" with --table", TABLE), (" with --against", AGAINST))
    defaults = [", ".join(map(str, STEP[name]))]
    defaults += [f"{', '.join(map(str, d[name]))}{mode}" for mode, d in by_mode if d[name] != STEP[name]]
    return click.option(f"--{name}", type=type, multiple=True, show_default="; ".join(defaults), help=text)


@click.command(context_settings={"show_default": True})
@click.option("--table", is_flag=True, help="Samples per second, memory, and hours for 200 epochs of GoPro.")
@click.option("--against", type=click.Choice(["torch"]), help="Ratios to the same networks and step in plain PyTorch.")
@click.option(
    "--engines",
    type=click.Path(exists=True, path_type=Path),
    help="Export these weights of a generator to every format; size and time of each on a photograph of 600x400.",
)
@click.option("--generator", type=click.Choice(["meudec", "paper"]), default="paper", help="Generator.")
@several("ngf", click.IntRange(1), "Channels of the generator.")
@click.option("--ndf", type=click.IntRange(1), default=Options.ndf, help="Channels of the critic.")
@several("image_size", click.IntRange(32), "Height and width of a crop, pixels.")
@several("batch_size", click.IntRange(1), "Pairs in a step.")
@several("precision", click.Choice(["float32", "mixed_bfloat16", "mixed_float16"]), "Dtype.")
@click.option(
    "--critic_updates", type=click.IntRange(2), default=Options.critic_updates, help="Updates of the critic in a step."
)
@click.option("--jit_compile", is_flag=True, help="As of train.py. On PyTorch the generator has no dropout then.")
@click.option("--n_steps", type=click.IntRange(1), default=5, help="Number of times that each is timed, in turn.")
@click.option("--plain", is_flag=True, help="Also time the same step without our optimizations (TensorFlow).")
@click.option("--kind", "kinds", multiple=True, help="A row of --against, such as 'full step'.  [default: all]")
def benchmark(table, against, engines, plain, kinds, n_steps, **sizes):
    """Times training steps and their parts on this machine and backend (KERAS_BACKEND=tensorflow, jax or torch).

    Prints seconds per step and their parts, images per second, and the share of the speed of this machine's own
    matrix multiplication, in the same run. VGG has random weights, which take as long. --table, --against and --engines
    print a Markdown table instead. --ngf, --image_size, --batch_size, --precision and --kind may be given several
    times; each combination is measured. Times are medians, after two calls that compile.
    """
    modes = {"--table": table, "--against": against, "--engines": engines, "--plain": plain}
    given = [flag for flag, value in modes.items() if value]
    if len(given) > 1:
        raise click.UsageError(f"{' and '.join(given)}: must be given one at a time")
    if kinds and not against:
        raise click.UsageError("--kind: must be given with --against")
    defaults = TABLE if table else AGAINST if against else STEP
    lists = {name: sizes.pop(name) or defaults[name] for name in STEP}
    for image_size in lists["image_size"]:
        if image_size % 4:
            raise click.UsageError(f"--image_size {image_size}: must be a multiple of 4")

    from benchmarks.measuring import Setting

    settings = [
        Setting(**sizes, **dict(zip(lists, values, strict=True))) for values in itertools.product(*lists.values())
    ]
    if table:
        from benchmarks.table import print_table

        print_table(settings, n_steps)
    elif against:
        from benchmarks.against_torch import print_ratios

        print_ratios(settings, n_steps, kinds)
    elif engines:
        from benchmarks.engines import print_engines

        print_engines(engines, n_steps)
    else:
        from benchmarks.step import print_parts

        for setting in settings:
            print_parts(setting, n_steps, plain)


if __name__ == "__main__":
    benchmark()
