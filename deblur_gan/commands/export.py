"""`deblur-gan export`: writes a generator for another engine."""

from pathlib import Path

import click

from deblur_gan import shipped_generator
from deblur_gan.commands import command
from deblur_gan.exporting import FORMATS
from deblur_gan.files import printable

_WITH = {
    precision: ", ".join(name for name, known in FORMATS.items() if precision in known.precisions)
    for precision in ("float16", "int8")
}


@command()
@click.option(
    "--weight_path",
    type=click.Path(exists=True, path_type=Path),
    default=shipped_generator,
    show_default="weights/generator.h5",
    help="Weights of the generator, of any kind that restores.",
)
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    required=True,
    help="h5: for Keras and this package. pth: a state_dict for the authors' PyTorch code. The others need TensorFlow "
    "and their own engine.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Name of the file: .h5, .pth, .onnx, .xml (OpenVINO, with a .bin next to it), .tflite (LiteRT), or of the "
    "folder (SavedModel). An existing one is replaced.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", *_WITH]),
    default="float32",
    help=f"Of the stored weights. float16: {_WITH['float16']}. int8: {_WITH['int8']}.",
)
@click.option(
    "--data_dir",
    type=click.Path(path_type=Path),
    help="Folder of pairs, as for `deblur-gan test`, on which the loss in PSNR is measured and printed.",
)
@click.option(
    "--no_dropout",
    is_flag=True,
    help="pth: for the authors' code run with --no_dropout, which gives the layers other names.",
)
def export(weight_path, format, output, precision, data_dir, no_dropout):
    """Writes a generator for ONNX Runtime, OpenVINO, LiteRT, TensorFlow or the authors' PyTorch code.

    The file is compared with `deblur-gan restore` in its own engine before it appears: a float32 file that restores a
    photograph with more than one grey level of difference is not written. The conversion runs on TensorFlow,
    whatever KERAS_BACKEND is; h5 and pth (with PyTorch installed) are written on every backend.
    """
    from deblur_gan.backend import start_backend, without_notes

    start_backend(backend="tensorflow" if "tensorflow" in FORMATS[format].needs else None)
    from tqdm import tqdm

    from deblur_gan.data.pairs import find_pairs
    from deblur_gan.evaluation.measure import measure, summarize
    from deblur_gan.exporting.export import CannotExport, export_generator, load_exported, require_exportable
    from deblur_gan.weights import load_generator

    try:
        require_exportable(output, format, precision)
    except CannotExport as error:
        raise click.UsageError(printable(error)) from None
    if no_dropout and format != "pth":
        raise click.UsageError(f"--no_dropout: {format} has no dropout; it is for pth")
    pairs = find_pairs(data_dir)[0] if data_dir else []
    if data_dir and not pairs:
        raise click.ClickException(printable(f"{data_dir}: contains no pairs"))
    click.echo(printable(f"Converting {weight_path} to {format}, {precision}; at full width this takes minutes"))
    with without_notes():
        difference = export_generator(weight_path, output, format, precision, not no_dropout)
    click.echo(printable(f"{output}: differs from deblur by at most {difference} of 255 levels on a photograph"))
    if pairs:
        generator = load_generator(weight_path)
        here, there = (
            summarize(list(measure(restorer, tqdm(pairs, unit="pair"), metrics=("psnr",))))
            for restorer in (generator, load_exported(output, generator))
        )
        psnr = here["blurred"]["psnr"], here["restored"]["psnr"], there["restored"]["psnr"]
        loss = round(psnr[1] - psnr[2], 3) + 0.0  # not -0.000
        click.echo(
            f"PSNR on {len(pairs)} pairs, full size: blurred {psnr[0]:.2f} dB, restored {psnr[1]:.2f} dB, by the "
            f"exported file {psnr[2]:.2f} dB; loss {loss:.3f} dB"
        )
