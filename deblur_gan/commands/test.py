"""`deblur-gan test`: scores generators on pairs of photographs."""

import sys
from pathlib import Path

import click

from deblur_gan import shipped_generator
from deblur_gan.backend import PRECISIONS
from deblur_gan.commands import command, ensemble_option, home, scale_option
from deblur_gan.files import printable


@command()
@click.option(
    "--data_dir",
    type=click.Path(path_type=Path),
    default=lambda: home() / "images" / "test",
    show_default="images/test of a clone, or of the current folder",
    help="Folder with A/ and B/, or blur/ and sharp/, or GoPro, REDS or RealBlur as unpacked; or a text file of paths.",
)
@click.option(
    "--weight_path",
    "weight_paths",
    type=click.Path(exists=True, path_type=Path),
    multiple=True,
    default=lambda: [shipped_generator()],
    show_default="weights/generator.h5",
    help="Weights of a generator; repeat it to compare several.",
)
@click.option(
    "--output_dir",
    type=click.Path(path_type=Path),
    default=Path("results"),
    help="Folder in which <name of the weights>/ with metrics.csv, metrics.json and index.html is made.",
)
@click.option(
    "--protocol",
    "protocols",
    type=click.Choice(["full", "half", "256"]),
    multiple=True,
    default=["full"],
    help="Size at which scores are computed; may be repeated. full: native. half: both images at half size, as for the "
    "paper's figures. 256: both resized to 256x256.",
)
@click.option("--n_images", type=click.IntRange(min=1), help="Number of pairs to use, evenly spread.  [default: all]")
@click.option("--batch_size", type=click.IntRange(min=1), default=1, help="Images restored at once, for speed.")
@click.option(
    "--blur",
    type=click.Choice(["blur", "blur_gamma"]),
    default="blur",
    help="Which blurred folder of a GoPro tree (blur_gamma: averaged in linear light).",
)
@click.option(
    "--tile_size",
    type=click.IntRange(min=8),
    help="Size of tiles in pixels; smaller ones save memory.  [default: as `deblur-gan restore`]",
)
@ensemble_option
@scale_option
@click.option(
    "--align",
    type=click.IntRange(0, 16),
    default=0,
    help="Shift blurred and restored images by up to N whole pixels each way to fit the sharp one best. N pixels at "
    "each border are not scored. For pairs whose photographs are shifted against each other.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    help="Number format of the network. float32 scores the same on every processor; see `deblur-gan restore`.",
)
@click.option("--save_images", is_flag=True, help="Also write the restored images, as PNG.")
def test(weight_paths, **options):
    """Scores generators on pairs of blurred and sharp photographs.

    Prints PSNR, SSIM and its variants for the blurred input, the restored images and the gain, per sequence and
    overall. Writes them for each image, and a page with pictures. An interrupted run resumes. The exit code is 1 if
    files had to be left out; they are listed at the end.
    """
    if not options["data_dir"].exists():
        raise click.BadParameter(
            f"{options['data_dir']}: no such folder; name one with test pairs, or let "
            "`deblur-gan organize` or `deblur-gan samples` make images/test",
            param_hint="--data_dir",
        )
    from deblur_gan.backend import start_backend

    start_backend()
    from deblur_gan.evaluation.report import format_comparison, format_table
    from deblur_gan.evaluation.results import evaluate

    program, *arguments = sys.argv  # as a person types it
    words = ["python", *sys.argv] if program.endswith(".py") else [Path(program).name, *arguments]
    results, problems = evaluate(weight_paths, command=words, **options)
    for result in results:
        click.echo(f"\n{printable(result.folder / 'index.html')}\n\n{format_table(result)}")
    if len(results) > 1:
        click.echo(f"\nComparison\n\n{format_comparison(results)}")
    if problems:
        click.echo(f"\nFiles left out: {len(problems)}\n" + "\n".join(problems), err=True)
        sys.exit(1)
