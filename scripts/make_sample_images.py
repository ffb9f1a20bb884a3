"""Makes a small data set to try things with: python scripts/make_sample_images.py"""

from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent


@click.command()
@click.option(
    "--output_dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT / "images",
    show_default="images/ of the repository",
    help="Folder that gets train/ and test/, each with A/ (blurred) and B/ (sharp), and real/ (blurred by a hand).",
)
def make_sample_images(output_dir):
    """Makes a small data set from photographs that come with scikit-image, blurred by random camera shake.

    Always the same files; nothing is downloaded.
    """
    from deblur_gan.files import printable
    from deblur_gan.samples import write_sample_images

    try:
        n_train, n_test = write_sample_images(output_dir)
    except (ValueError, OSError) as error:
        raise click.ClickException(printable(error)) from None
    click.echo(f"{n_train} training and {n_test} test pairs written to {output_dir}")


if __name__ == "__main__":
    make_sample_images()
