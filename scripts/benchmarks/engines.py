"""Measures size and time of a generator in each format that it can be exported to."""

import statistics
import tempfile
from pathlib import Path

import click
from benchmarks.measuring import time_in_turn


def print_engines(weight_path, n_times):
    """Prints a table of the formats: size of the file, seconds for a photograph, their ratio to those of Keras."""
    from deblur_gan.backend import start_backend

    start_backend(training=True)
    import skimage

    from deblur_gan.exporting import FORMATS
    from deblur_gan.exporting.export import CannotExport, export_generator, load_exported
    from deblur_gan.images.photographs import read_rgb
    from deblur_gan.restoring.deblur import deblur
    from deblur_gan.weights import load_generator

    photograph = read_rgb(Path(skimage.__file__).parent / "data" / "coffee.png")
    generator = load_generator(weight_path)
    sizes, restorers = {"Keras": weight_path.stat().st_size}, {"Keras": generator}
    with tempfile.TemporaryDirectory() as folder:
        for format, known in FORMATS.items():
            for precision in known.precisions if format != "pth" else ():
                name, files = f"{format} {precision}", Path(folder) / f"{format}_{precision}"
                files.mkdir()
                try:
                    export_generator(weight_path, files / f"generator{known.suffix}", format, precision)
                except CannotExport as error:
                    click.echo(str(error), err=True)
                    continue
                sizes[name] = sum(file.stat().st_size for file in files.rglob("*") if file.is_file())
                restorers[name] = load_exported(files / f"generator{known.suffix}", generator)
        kinds = {name: lambda restorer=restorer: deblur(restorer, photograph) for name, restorer in restorers.items()}
        wall, _ = time_in_turn(kinds, n_times)
    click.echo("| format | MB | s | of Keras |\n|---|---:|---:|---:|")
    medians = {name: statistics.median(seconds) for name, seconds in wall.items()}
    for name, seconds in medians.items():
        click.echo(f"| {name} | {sizes[name] / 1e6:.2f} | {seconds:.2f} | {seconds / medians['Keras']:.2f} |")
