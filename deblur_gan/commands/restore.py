"""`deblur-gan restore`: restores photographs."""

from pathlib import Path

import click

from deblur_gan import shipped_generator
from deblur_gan.commands import home


@click.command()
@click.option(
    "--weight_path",
    type=click.Path(exists=True, path_type=Path),
    default=shipped_generator,
    show_default="weights/generator.h5",
    help="Weights of the generator: .h5, .weights.h5 or .keras of any DeblurGAN in Keras, .pth of the authors' code.",
)
@click.option(
    "--input_dir",
    type=click.Path(exists=True, path_type=Path),
    help="A folder of photographs, or one photograph: JPEG, PNG, WebP, TIFF, BMP, AVIF, or, with pillow-heif, HEIC. "
    "Subfolders are not looked into. [default: images/test/A, sample photographs that are made where they are missing]",
)
@click.option(
    "--output_dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("restored"),
    show_default=True,
    help="Folder for the restored photographs, which keep their names. Older files of these names are replaced.",
)
@click.option("--side_by_side", is_flag=True, help="Write pictures of blurred | restored instead.")
@click.option(
    "--tile_size",
    type=click.IntRange(min=8),
    help="Restore in overlapping tiles of this many pixels, for less memory. "
    "[default: whole photographs up to 1.5 megapixels, tiles of 1024 above]",
)
@click.option("--overwrite", is_flag=True, help="Let a restored photograph replace the file it was made from.")
def restore(weight_path, input_dir, output_dir, side_by_side, tile_size, overwrite):
    """Restores blurred photographs at their own size, whatever it is.

    The exit code is 0 if every photograph was restored, 1 if one was not, 2 if the command line makes no sense.
    """
    from deblur_gan.backend import start_backend

    start_backend()
    from deblur_gan.files import printable
    from deblur_gan.photographs import BadImage
    from deblur_gan.restoration import restore_files
    from deblur_gan.samples import write_sample_images
    from deblur_gan.weights import BadWeights, load_generator

    try:
        if input_dir is None:
            input_dir = home() / "images" / "test" / "A"
            if not input_dir.is_dir():
                write_sample_images(home() / "images")
            click.echo(printable(f"No --input_dir: restoring the sample photographs in {input_dir}"))
        generator = load_generator(weight_path)
        restored, failed = restore_files(generator, input_dir, output_dir, side_by_side, tile_size, overwrite)
    except (BadImage, BadWeights, OSError) as error:
        raise click.ClickException(printable(error)) from None
    n_photographs = len(restored) + len(failed)
    click.echo(printable(f"Restored {len(restored)} of {n_photographs} photographs into {output_dir}/"))
    if failed:
        raise SystemExit(1)
