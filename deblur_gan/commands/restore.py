"""`deblur-gan restore`: restores photographs."""

import functools
import json
import os
import re
import sys
import time
from pathlib import Path

import click

from deblur_gan import shipped_generator
from deblur_gan.backend import PRECISIONS
from deblur_gan.commands import command, ensemble_option, home, scale_option
from deblur_gan.files import printable

# Names of formats on the command line, and Pillow's.
FORMATS = {
    "jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "tiff": "TIFF", "bmp": "BMP", "avif": "AVIF", "heic": "HEIF"
}  # fmt: skip
STREAM = Path("-")


def _shard(context, parameter, value):
    """Reads NUMBER/COUNT."""
    number, _, count = value.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise click.BadParameter(f"{value!r} is not NUMBER/COUNT with a number from 1 to the count, such as 2/8")
    return int(number), int(count)


def _seconds(context, parameter, value):
    """Reads seconds, or [hours:]minutes:seconds."""
    if value is None:
        return None
    if not re.fullmatch(r"((\d+:)?[0-5]?\d:[0-5]?\d|\d+)(\.\d*)?", value, re.ASCII):
        raise click.BadParameter(f"{value!r} is no time such as 7.5 (seconds) or 1:02:30 (hours:minutes:seconds)")
    return sum(float(part) * 60**power for power, part in enumerate(reversed(value.split(":"))))


def _part_of_a_name(context, parameter, value):
    if {*value} & {"/", "\0", os.sep}:
        raise click.BadParameter(f"{value!r} cannot be part of a file name")
    return value


@command()
@click.argument("photographs", nargs=-1, type=click.Path(exists=True, allow_dash=True, path_type=Path))
@click.option(
    "--input_dir", type=click.Path(exists=True, path_type=Path), help="Another file or folder of photographs."
)
@click.option(
    "--output_dir",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("restored"),
    help="Folder for the restored photographs, which keep their names. They replace older files of these names.",
)
@click.option("--recursive", is_flag=True, help="Restore subfolders too, and make the same ones in --output_dir.")
@click.option("--skip_existing", is_flag=True, help="Skip photographs whose result exists.")
@click.option(
    "--suffix",
    callback=_part_of_a_name,
    default="",
    show_default=False,
    help="Text after the names, such as _sharp: photo_sharp.jpg.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(list(FORMATS), case_sensitive=False),
    help="Format of the restored photographs.  [default: that of each original]",
)
@click.option(
    "--quality",
    type=click.IntRange(1, 100),
    help="Quality of JPEG, WebP, AVIF and HEIC.  [default: that of the original for JPEG, 95 for the others]",
)
@click.option(
    "--strength",
    type=click.FloatRange(0, 1),
    default=1.0,
    help="Share of the correction to apply: 0 leaves the photograph as it is.",
)
@click.option(
    "--weight_path",
    type=click.Path(exists=True, path_type=Path),
    default=shipped_generator,
    show_default="weights/generator.h5",
    help="Weights of the generator: .h5, .weights.h5 or .keras of any DeblurGAN in Keras, .pth of the authors' code.",
)
@click.option("--side_by_side", is_flag=True, help="Write each photograph and its restored copy next to each other.")
@click.option(
    "--tile_size",
    type=click.IntRange(min=8),
    help="Largest height and width of the overlapping tiles, in pixels.  [default: 304 for paper generators; for "
    "meudec, whole photographs up to 1.5 megapixels, and 1024 above]",
)
@ensemble_option
@scale_option
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="auto",
    help="Precision of the network; auto: bfloat16 if the processor is faster in it.",
)
@click.option("--overwrite", is_flag=True, help="Let a restored photograph replace its original.")
@click.option(
    "--shard",
    callback=_shard,
    metavar="NUMBER/COUNT",
    default="1/1",
    show_default=False,
    help="Part of the photographs, such as 2/8: every eighth by name, beginning with the second.",
)
@click.option(
    "--start", callback=_seconds, metavar="TIME", help="Where to begin in a video: seconds, or hours:minutes:seconds."
)
@click.option(
    "--duration",
    callback=_seconds,
    metavar="TIME",
    help="How much of a video to restore: seconds, or hours:minutes:seconds.",
)
@click.option("--dry_run", is_flag=True, help="Print what would be written, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each photograph.")
@click.pass_context
def restore(context, photographs, input_dir, weight_path, tile_size, strength, ensemble, scale, precision, **options):
    """Restores PHOTOGRAPHS, files and folders of any number and size; results keep their sizes.

    Reads JPEG, PNG, WebP, TIFF, BMP, AVIF and HEIC; videos too if PyAV is installed and the command line names them. -
    reads a photograph from standard input and writes it to standard output. Without PHOTOGRAPHS, restores samples, and
    makes them first if they are missing.

    Uses OpenVINO if it is installed. Set KERAS_BACKEND to tensorflow, jax, torch or openvino to choose another backend.

    The exit code is 0 if every photograph was restored, 1 if one was not, 2 for a wrong command line, 130 after Ctrl-C.
    """
    options["file_format"] = FORMATS.get(options["file_format"])
    sources = [*photographs, *([input_dir] if input_dir else [])]

    def load(tile_bar=None):
        from deblur_gan.backend import dtype_to_restore_in, engine_and_precision, start_backend

        start_backend(restoring=True)
        dtype = dtype_to_restore_in(precision)
        from deblur_gan.restoring.deblur import deblur
        from deblur_gan.weights import load_generator

        generator = load_generator(weight_path, dtype)
        how = {"tile_size": tile_size, "strength": strength, "ensemble": ensemble, "scale": scale}
        return functools.partial(deblur, generator, progress=tile_bar, **how), engine_and_precision(dtype)

    if STREAM in sources:
        if len(sources) > 1:
            raise click.UsageError("- is one photograph; others cannot be given with it")
        for param in context.command.params:
            if param.name in options.keys() - {"file_format", "quality"} and (
                context.get_parameter_source(param.name) != click.core.ParameterSource.DEFAULT
            ):
                raise click.UsageError(f"- goes to standard output; {param.opts[0]} cannot be given with it")
        _restore_stream(load, options["file_format"], options["quality"])
        return
    sharp = None
    if not sources:
        sources, sharp = _samples(options["as_json"])
    if not _restore_files(load, sources, sharp, **options):
        context.exit(1)


def _samples(quiet):
    """Makes the samples if they are missing; returns a list with their folder, and the folder of their originals."""
    folder = home() / "images" / "test"
    if not (folder / "A").is_dir():
        from deblur_gan.data.samples import write_sample_images

        write_sample_images(folder.parent)
    if not quiet:
        click.echo(printable(f"No photographs given: restoring the sample photographs in {folder / 'A'}"))
    return [folder / "A"], folder / "B"


def _restore_stream(load, file_format, quality):
    from deblur_gan.restoring.photograph import restore_stream

    if sys.stdout.isatty():
        raise click.UsageError("- goes to standard output, which is this terminal; redirect it: - > restored.jpg")
    content = sys.stdin.buffer.read()
    restored = restore_stream(lambda pixels: load()[0](pixels), content, file_format, quality, "the input")
    sys.stdout.buffer.write(restored)


def _restore_files(
    load, sources, sharp, output_dir, recursive, skip_existing, suffix, file_format, shard, dry_run, as_json, **options
):
    """Restores what `sources` name; returns whether all of it was restored."""
    from tqdm import tqdm

    from deblur_gan.files import clear_unfinished, make_folder
    from deblur_gan.restoring.jobs import Job, find_jobs, restore_files

    began = time.perf_counter()
    jobs, left_out = find_jobs(sources, output_dir, recursive, suffix, file_format, shard)
    with_video = any(job.is_video for job in jobs)
    # Among the sources, for a shard may have none of the videos.
    names_video = any(Job(source, output_dir).is_video and not source.is_dir() for source in sources)
    if (options["start"] is not None or options["duration"] is not None) and not names_video:
        raise click.UsageError("--start and --duration are for videos; give one")
    # A photograph that would be replaced by its result is no result yet.
    exist = [skip_existing and not job.problem and job.target.exists() and not job.replaces_source for job in jobs]
    waiting = [job for job, exists in zip(jobs, exist, strict=True) if not exists]
    if dry_run:
        for line in left_out:
            click.echo(line, err=True)
        refusals = [job.refusal(options["overwrite"]) for job in waiting]
        for job, refusal in zip(waiting, refusals, strict=True):
            click.echo(refusal or printable(f"{job.source} -> {job.target}"))
        _say_skipped(len(jobs) - len(waiting))
        return not any(refusals)
    make_folder(output_dir)
    for folder in {job.target.parent for job in waiting if not job.problem}:
        clear_unfinished(folder)

    done, engine, working_sizes = [], None, set()
    # A bar for one photograph too; on a screen from the beginning on, for a backend may take seconds to start.
    on_screen = sys.stderr.isatty()
    bar = tqdm(total=len(waiting), unit="photo", delay=0 if on_screen else 1e-9)

    def say(line):
        bar.write(line, file=sys.stderr)

    def tile_bar(tiles):
        times = []
        working_sizes.add(tiles[0][0].size)
        for tile in tqdm(tiles, unit="tile", leave=False, disable=len(tiles) <= 2):
            times.append(time.perf_counter())
            # From the second tile on: the first one waits until the network is compiled.
            if len(times) == 3 and not with_video and (expected := (times[2] - times[1]) * len(tiles)) > 10:
                say(f"This photograph takes about {expected:.0f} s")
            yield tile

    def load_generator():
        nonlocal engine
        bar.set_description("loading the network", refresh=on_screen)
        try:
            restore, engine = load(tile_bar)
        except BaseException:  # the line with the reason is the only one
            if on_screen:
                bar.clear()
            bar.disable = True
            raise
        bar.set_description(None)
        return restore

    try:
        with bar:
            for line in left_out:
                say(line)
            options["frame_bar"] = functools.partial(tqdm, leave=False)
            for outcome in restore_files(load_generator, waiting, file_format, **options):
                done.append(outcome)
                bar.update()
                if as_json:
                    bar.write(_as_json(outcome, engine), file=sys.stdout)
                elif outcome.error:
                    say(outcome.error)
                for note in () if as_json else outcome.notes:
                    say(printable(f"{outcome.job.source}: restored, but {note}"))
    except KeyboardInterrupt:
        n_restored = sum(outcome.error is None for outcome in done)
        interrupted = f"Interrupted: {n_restored} of {len(waiting)} photographs are restored, in {output_dir}/"
        click.echo(printable(f"{interrupted}; --skip_existing resumes there"), err=True)
        raise SystemExit(130) from None
    restored = [outcome for outcome in done if outcome.error is None]
    if not as_json:
        megapixels = sum(outcome.size[0] * outcome.size[1] * outcome.n_frames for outcome in restored) / 1e6
        kind = "files" if with_video else "photographs"
        about = f"{megapixels:.1f} megapixels{_at(working_sizes)} in {time.perf_counter() - began:.1f} s"
        if engine:
            about += f", {engine}"
        click.echo(printable(f"Restored {len(restored)} of {len(done)} {kind} into {output_dir}/ ({about})"))
        _say_skipped(len(jobs) - len(waiting))
        if sharp:
            click.echo(printable(f"Their sharp originals are in {sharp}/"))
    return len(restored) == len(done)


def _at(working_sizes):
    """Returns the words that name the working size of one photograph, or the range of several."""
    if len(working_sizes) == 1:
        [(height, width)] = working_sizes
        return f", worked on at {width}x{height},"
    sides = sorted({max(size) for size in working_sizes})
    if not sides:
        return ""
    return f", worked on at {' to '.join(map(str, dict.fromkeys((sides[0], sides[-1]))))} pixels,"


def _say_skipped(number):
    if number:
        click.echo(f"Left out {number}, whose results exist")


def _as_json(outcome, engine):
    job, about = outcome.job, {"file": str(outcome.job.source)}
    if outcome.error:
        return json.dumps(about | {"error": outcome.error})
    about |= {"restored": str(job.target), "width": outcome.size[0], "height": outcome.size[1]}
    about |= {"bytes": job.target.stat().st_size, "original_bytes": outcome.original_bytes}
    if job.is_video:
        about["frames"] = outcome.n_frames
    about |= {"seconds": round(outcome.seconds, 3), "engine": engine, "dropped": outcome.notes}
    return json.dumps(about)
