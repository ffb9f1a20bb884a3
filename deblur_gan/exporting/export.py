"""`export_generator` writes a generator for another engine, and compares what the engine restores before it appears."""

import contextlib
import importlib
import importlib.util
import logging
import warnings
from pathlib import Path

import numpy as np
import skimage

from deblur_gan import __version__
from deblur_gan.architectures import GENERATORS
from deblur_gan.backend import keras
from deblur_gan.exporting import FORMATS
from deblur_gan.files import put_in_place, reason, sha256_of, staging_folder
from deblur_gan.images.photographs import read_rgb
from deblur_gan.restoring.deblur import FULL_CONTRAST, INSTANCE_TILE_SIZE, deblur
from deblur_gan.restoring.tiles import SIZE_MULTIPLE, SMALLEST_WHOLE_SIDE
from deblur_gan.weights import BadWeights, describe, load_generator

# Grey levels by which a float32 file may differ from `deblur`: one, because two roundings may fall on either side.
LARGEST_DIFFERENCE = 1

# Height and width of the crops of a photograph that are compared; no multiple of 4 divides them.
_COMPARED_SIZES = ((201, 301), (83, 66))


class CannotExport(ValueError):
    """A file cannot be made; the message is one line with the reason."""


def export_generator(weight_path, output, format, precision="float32", dropout=True):
    """Writes a generator in another format; the file appears whole and compared with `deblur`, or not at all.

    Height and width stay free. Input and output are float32 `(B, H, W, 3)`, RGB in [-1, 1]; H and W are multiples of 4.
    `docs/export.md` describes the formats, the precisions, and the JSON in a file about its use and its origin.

    Args:
        weight_path: str or Path of the generator's weights; see `load_generator`.
        output: str or Path that ends as the format requires; an existing file is replaced. Missing folders are made.
            OpenVINO's weights get the same name with ".bin".
        format: key of `FORMATS`.
        precision: one of the format's precisions.
        dropout: bool, for "pth"; see `save_pytorch`.

    Returns:
        int, the largest difference from `deblur` in grey levels, on crops of a photograph.

    Raises:
        CannotExport: if an argument is not as above, a package is missing, the conversion fails, or a float32 file
            differs by more than `LARGEST_DIFFERENCE`.
        BadWeights: as `load_generator`.
        OSError: if the file cannot be written; an older file at `output` then stays.

    >>> export_generator("weights/generator.h5", "generator.onnx", "onnx", "int8")  # doctest: +SKIP
    5
    """
    output = Path(output)
    require_exportable(output, format, precision)
    generator, facts = load_generator(weight_path), _facts(weight_path, precision)
    output.parent.mkdir(parents=True, exist_ok=True)
    with staging_folder(output) as folder:
        made = folder / f"generator{FORMATS[format].suffix}"
        try:
            with _quiet():
                options = {"dropout": dropout} if format == "pth" else {}
                _module(format).write(generator, made, precision, facts, **options)
                difference = _largest_difference(generator, _module(format).load(made, generator))
        except (OSError, MemoryError):
            raise
        # Converters and engines raise all kinds of exceptions.
        except Exception as error:
            raise CannotExport(f"{weight_path}: cannot be written as {format}, {precision} ({reason(error)})") from None
        if precision == "float32" and difference > LARGEST_DIFFERENCE:
            raise CannotExport(
                f"{weight_path}: as {format} it restores {difference} grey levels away from `deblur`; at most "
                f"{LARGEST_DIFFERENCE} is allowed. Nothing was written"
            )
        if format == "openvino":
            put_in_place(made.with_suffix(".bin"), output.with_suffix(".bin"))
        put_in_place(made, output)
    return difference


def load_exported(path, generator):
    """Loads a file that `export_generator` wrote into its own engine, on the processor, in float32 if the file is.

    Args:
        path: str or Path of the file, or of the folder of a SavedModel, whatever its name.
        generator: `keras.Model`, the generator that it was made from.

    Returns:
        An object that `deblur` and `measure` take in place of `generator`.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        BadWeights: if it is in none of the formats, or damaged.
        ImportError: if its engine is not installed.

    >>> restorer = load_exported("generator.onnx", load_generator("weights/generator.h5"))  # doctest: +SKIP
    >>> restored = deblur(restorer, blurred)  # doctest: +SKIP
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    suffix = "" if path.is_dir() else path.suffix or None
    format = next((name for name, known in FORMATS.items() if known.suffix == suffix), None)
    if format is None:
        endings = ", ".join(known.suffix for known in FORMATS.values() if known.suffix)
        raise BadWeights(f"{path}: is not an exported generator; a file that ends in {endings} or a folder is required")
    try:
        return _module(format).load(path, generator)
    except (BadWeights, ImportError):
        raise
    # Each engine raises its own exceptions about a damaged file.
    except Exception as error:
        raise BadWeights(f"{path}: cannot be loaded as {format} ({reason(error)})") from None


def _module(format):
    return importlib.import_module(f"deblur_gan.exporting.{format}")


def require_exportable(output, format, precision="float32"):
    """Raises `CannotExport`, before any work, for what `export_generator` cannot make."""
    if format not in FORMATS:
        raise CannotExport(f"format {format!r}: must be one of {', '.join(FORMATS)}")
    suffix, precisions, needs = FORMATS[format]
    if precision not in precisions:
        hint = "; OpenVINO reads the int8 file of --format onnx" if format == "openvino" else ""
        raise CannotExport(f"--precision {precision}: {format} has {' and '.join(precisions)}{hint}")
    if suffix and output.suffix != suffix:
        raise CannotExport(f"{output}: the name of a file in the format {format} must end in {suffix}")
    if suffix and output.name.endswith(".weights.h5"):
        raise CannotExport(f"{output}: the name of a weight file must end in .h5 and not in .weights.h5")
    for place in [output] * bool(suffix) + [output.with_suffix(".bin")] * (format == "openvino"):
        if place.is_dir():
            raise CannotExport(f"{place}: is a folder; the name of a file is required")
    if not suffix and output.exists() and not (output / "saved_model.pb").is_file():
        raise CannotExport(f"{output}: exists and is not a SavedModel; it is not replaced")
    missing = " ".join(module for module in needs if importlib.util.find_spec(module) is None)
    if missing:
        raise CannotExport(f"--format {format}: {missing} is not installed; pip install {missing}")
    if "tensorflow" in needs and keras.backend.backend() != "tensorflow":
        raise CannotExport(f"--format {format}: needs KERAS_BACKEND=tensorflow, not {keras.backend.backend()}")


def _facts(weight_path, precision):
    """Returns what a file states about itself; see `export_generator`."""
    description = describe(weight_path)
    of_paper = {"full_contrast": FULL_CONTRAST, "tile_size": INSTANCE_TILE_SIZE}
    return {
        **description,
        "package_version": __version__,
        "precision": precision,
        "source_sha256": sha256_of(weight_path),
        "layout": "NHWC",
        "channels": "RGB",
        "value_range": [-1, 1],
        "size_multiple": SIZE_MULTIPLE,
        "smallest_side": SMALLEST_WHOLE_SIDE,
        **(of_paper if GENERATORS[description["architecture"]].normalization == "instance" else {}),
    }


def _largest_difference(generator, restorer):
    photograph = read_rgb(Path(skimage.__file__).parent / "data" / "coffee.png")
    crops = [photograph[-height:, -width:] for height, width in _COMPARED_SIZES]
    return int(max(np.abs(deblur(generator, crop).astype(int) - deblur(restorer, crop)).max() for crop in crops))


@contextlib.contextmanager
def _quiet():
    """Keeps what converters log and warn about their own code from the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
