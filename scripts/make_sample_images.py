"""Makes a small data set, blurred by random camera shake, from photographs that come with scikit-image."""

from pathlib import Path

import click


@click.command(help=__doc__)
@click.option(
    "--output_dir",
    default=Path(__file__).resolve().parent.parent / "images",
    show_default="images/ of the repository",
    help="Folder that gets train/ and test/, each with A/ (blurred) and B/ (sharp), and real/ (blurred by a hand).",
)
def main(output_dir):
    from deblur_gan.synthesis import write_sample_images

    try:
        n_train, n_test = write_sample_images(output_dir)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{n_train} training and {n_test} test pairs written to {output_dir}")


if __name__ == "__main__":
    main()
