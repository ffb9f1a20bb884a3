"""`deblur-gan samples`: makes a small data set for first tries."""

from pathlib import Path

import click

from deblur_gan.commands import command, home


@command()
@click.option(
    "--output_dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=lambda: home() / "images",
    show_default="images/ of a clone, or of the current folder",
    help="Folder to write train/ and test/ to, each with A/ (blurred) and B/ (sharp), and real/ (real motion blur).",
)
def samples(output_dir):
    """Makes a small data set from photographs that come with scikit-image, blurred by random camera shake.

    Always the same files; nothing is downloaded.
    """
    from deblur_gan.data.samples import write_sample_images

    n_train, n_test = write_sample_images(output_dir)
    click.echo(f"{n_train} training and {n_test} test pairs written to {output_dir}")
