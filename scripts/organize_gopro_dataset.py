"""Lays out the GoPro data set as images/{train,test}/{A,B}/ with unique file names."""

from pathlib import Path

import click

IMAGES = Path(__file__).resolve().parent.parent / "images"


@click.command(help=__doc__)
@click.option("--dir_in", type=click.Path(path_type=Path), required=True, help="The unpacked GOPRO_Large.")
@click.option(
    "--dir_out",
    type=click.Path(path_type=Path),
    default=IMAGES,
    show_default="images/ of this repository",
    help="Folder to write {train,test}/{A,B}/ into: hard links where the file system allows them, else copies.",
)
@click.option(
    "--blur",
    type=click.Choice(["blur", "blur_gamma"]),
    default="blur",
    show_default=True,
    help="Blurred frames to take: averaged as the camera stored them, or averaged in linear light.",
)
def main(dir_in, dir_out, blur):
    from deblur_gan.files import printable
    from deblur_gan.pairs import organize_gopro

    try:
        counts = organize_gopro(dir_in, dir_out, blur, show_progress=True)
    except OSError as error:
        raise click.ClickException(printable(error)) from None
    for part, count in counts.items():
        click.echo(printable(f"{dir_out / part}: {count} pairs"))


if __name__ == "__main__":
    main()
