"""`deblur-gan organize`: lays out the GoPro data set."""

from pathlib import Path

import click

from deblur_gan.commands import command, home
from deblur_gan.files import printable


@command()
@click.option("--dir_in", type=click.Path(path_type=Path), required=True, help="The unpacked GOPRO_Large.")
@click.option(
    "--dir_out",
    type=click.Path(path_type=Path),
    default=lambda: home() / "images",
    show_default="images/ of a clone, or of the current folder",
    help="Folder to write {train,test}/{A,B}/ into: hard links where the file system allows them, else copies.",
)
@click.option(
    "--blur",
    type=click.Choice(["blur", "blur_gamma"]),
    default="blur",
    help="Blurred frames to take: averaged as the camera stored them, or averaged in linear light.",
)
def organize(dir_in, dir_out, blur):
    """Lays out the GoPro data set as images/{train,test}/{A,B}/ with unique file names."""
    from deblur_gan.data.gopro import organize_gopro

    for part, count in organize_gopro(dir_in, dir_out, blur, show_progress=True).items():
        click.echo(printable(f"{dir_out / part}: {count} pairs"))
