"""How well a generator restores: the protocols under which scores are taken, and the run over a set of pairs.

A score means something only together with its protocol (the size at which it was taken) and beside the score of the
untouched blurred image. Both go into every table here. What is measured is `deblur`, the way every user gets.
"""

import csv
import hashlib
import importlib
import io
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import PIL
import scipy
import skimage
from PIL import Image
from tqdm import tqdm

from deblur_gan import __version__
from deblur_gan.files import whole_file, write_bytes
from deblur_gan.metrics import DEFINITIONS, METRICS, SMALLEST_SIDE
from deblur_gan.pairs import find_pairs
from deblur_gan.photographs import BadImage, Photograph, read_rgb, write_photograph
from deblur_gan.report import Example, Section, thumbnail, write_page
from deblur_gan.restoration import WHOLE_IMAGE_PIXELS, deblur
from deblur_gan.weights import BadWeights, describe, load_generator

CSV_NAME, JSON_NAME, PAGE_NAME = "metrics.csv", "metrics.json", "index.html"


class Protocol(NamedTuple):
    """What is done to both images of a pair before anything else.

    Attributes:
        size: function of `(height, width)` that returns the height and width to resize to.
        description: str, one line.
    """

    size: Callable
    description: str


PROTOCOLS = {
    "full": Protocol(lambda height, width: (height, width), "native size"),
    "half": Protocol(
        lambda height, width: (height // 2, width // 2),
        "both images to half height and width first (rounded down; Pillow's bicubic, which smooths before it shrinks)",
    ),
    "256": Protocol(
        lambda height, width: (256, 256),
        "both images squashed to 256x256 first (Pillow's bicubic, which smooths before it shrinks)",
    ),
}


def resize(image, protocol):
    """An image as a protocol wants it.

    Args:
        image: uint8 `(H, W, 3)`.
        protocol: key of `PROTOCOLS`.

    Returns:
        uint8 `(h, w, 3)`.
    """
    height, width = PROTOCOLS[protocol].size(*image.shape[:2])
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((max(width, 1), max(height, 1)), Image.Resampling.BICUBIC))


def read_pair(pair, protocol):
    """Reads a pair and puts it under a protocol.

    Args:
        pair: `Pair`.
        protocol: key of `PROTOCOLS`.

    Returns:
        `(blurred, sharp)`, uint8 `(h, w, 3)` both.

    Raises:
        BadImage: if a file cannot be read, the two differ in size, or a side comes out below `SMALLEST_SIDE`.
    """
    blurred, sharp = read_rgb(pair.blurred), read_rgb(pair.sharp)
    if blurred.shape != sharp.shape:
        sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (blurred, sharp)]
        raise BadImage(f"{pair.blurred}: is {sizes[0]}, but {pair.sharp} is {sizes[1]}; one size is required")
    blurred, sharp = resize(blurred, protocol), resize(sharp, protocol)
    if min(sharp.shape[:2]) < SMALLEST_SIDE:
        raise BadImage(
            f"{pair.blurred}: {sharp.shape[1]}x{sharp.shape[0]} under protocol {protocol}; "
            f"SSIM requires {SMALLEST_SIDE} pixels each way"
        )
    return blurred, sharp


class Row(NamedTuple):
    """What was measured on one pair under one protocol.

    Attributes:
        protocol: key of `PROTOCOLS`.
        sequence, name: str, as of `Pair`.
        height, width: int, pixels under the protocol.
        blurred, restored: dicts from the names of `METRICS` to scores.
        seconds: float, time of `deblur` alone (without reading and scoring), its share of a batch.
        key: str, tells weights, protocol, both files, settings and versions; see `_Folder`.
    """

    protocol: str
    sequence: str
    name: str
    height: int
    width: int
    blurred: dict
    restored: dict
    seconds: float
    key: str

    @property
    def pair_id(self):
        return self.sequence, self.name

    @property
    def gain(self):
        """dict from the names of `METRICS` to restored minus blurred; not a number between two infinities."""
        with np.errstate(invalid="ignore"):
            return {name: float(np.subtract(self.restored[name], self.blurred[name])) for name in METRICS}

    @property
    def perfect(self):
        """bool, the blurred or the restored image equals the sharp one, so that its PSNR is infinite."""
        return np.isinf(self.blurred["psnr"]) or np.isinf(self.restored["psnr"])


KINDS = ("blurred", "restored", "gain")


def summarize(rows):
    """Means over rows of one protocol; every image counts the same.

    An image that equals the sharp one has an infinite PSNR. Its row is left out of the three means of PSNR (so that
    the gain stays the difference of the other two) and counted in `n_perfect`; it counts in all other means.

    Args:
        rows: list of `Row`, not empty.

    Returns:
        dict: `n_images`, `n_perfect`, `seconds_per_image` (the median), and for each of "blurred", "restored" and
        "gain" a dict from the names of `METRICS` to the mean, None where no row is left.
    """
    summary = {
        "n_images": len(rows),
        "n_perfect": sum(bool(row.perfect) for row in rows),
        "seconds_per_image": float(np.median([row.seconds for row in rows])),
    }
    imperfect = [row for row in rows if not row.perfect]
    for kind in KINDS:
        summary[kind] = {}
        for name in METRICS:
            counted = imperfect if name == "psnr" else rows
            summary[kind][name] = float(np.mean([getattr(row, kind)[name] for row in counted])) if counted else None
    return summary


class Result(NamedTuple):
    """What `evaluate` found out about one weight file.

    Attributes:
        name: str, of the weights.
        folder: Path that holds `metrics.csv`, `metrics.json`, `index.html`.
        rows: dict from protocol to list of `Row`.
        summaries: dict from protocol to `{"overall": summary, "sequences": {sequence: summary}}`, see `summarize`.
    """

    name: str
    folder: Path
    rows: dict
    summaries: dict


def evaluate(
    weight_paths,
    data_dir,
    output_dir="results",
    protocols=("full",),
    n_images=None,
    batch_size=1,
    blur="blur",
    tile_size=None,
    save_images=False,
    command=(),
):
    """Scores generators on pairs of blurred and sharp photographs.

    For each weight file `<output_dir>/<name of the file without extension>/` is filled: `metrics.csv` (one row for
    each pair and protocol, written as soon as it is measured), `metrics.json` (means, protocols, sha256, versions)
    and `index.html` (the same to look at, in one file). With several weight files, `<output_dir>/comparison.csv` too.

    A run that was interrupted goes on where it stopped. A row of `metrics.csv` is used again only if the weights, the
    content of both photographs, `tile_size` and the versions of the libraries are those it was measured with; other
    rows are measured again. Rows that are still valid but not asked for stay in `metrics.csv` alone.

    Args:
        weight_paths: list of str or Path, generators.
        data_dir: str or Path, see `find_pairs`.
        output_dir: str or Path; made where it does not exist.
        protocols: sequence of keys of `PROTOCOLS`.
        n_images: int, take so many pairs, evenly spread over all; None takes all.
        batch_size: int, consecutive images of one size that are restored at once. It does not change what is measured.
        blur: "blur" or "blur_gamma", see `find_pairs`.
        tile_size: int, restore in tiles of so many pixels; None leaves it to `deblur`.
        save_images: bool, also write the restored images, as PNG under `restored/<protocol>/<sequence>/`.
        command: sequence of str, the command line, for `metrics.json`.

    Returns:
        `(results, problems)`: list of `Result`, and list of str, one line for each file that could not be used.

    Raises:
        NotADirectoryError: as `find_pairs`.
        BadWeights: as `load_generator`, and if two weight files would have one name.
        BadImage: if no pair can be used.
        ValueError: if an argument is outside what is said above.
        OSError: if results cannot be written.
    """
    unknown = [protocol for protocol in protocols if protocol not in PROTOCOLS]
    if unknown or not protocols:
        raise ValueError(f"protocols={list(protocols)}: each must be one of {', '.join(PROTOCOLS)}")
    protocols = [protocol for protocol in PROTOCOLS if protocol in protocols]
    for name, value in (("n_images", n_images), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    # A weight file that cannot be used is better found out about now than after hours.
    descriptions = [describe(path) for path in weight_paths]
    for path, description in zip(weight_paths, descriptions, strict=True):
        if description["network"] != "generator":
            raise BadWeights(f"{path}: holds a {description['network']}; a generator is required")
    names = _names(weight_paths)

    all_pairs, unmatched = find_pairs(data_dir, blur)
    if not all_pairs:
        raise BadImage(f"{data_dir}: no photograph has both a blurred and a sharp version")
    unmatched_lines = [f"{path}: has no counterpart of the same name, or more than one" for path in unmatched]
    n_images = min(n_images or len(all_pairs), len(all_pairs))
    pairs = [all_pairs[i * len(all_pairs) // n_images] for i in range(n_images)]

    data = _Data(all_pairs)
    results = []
    for name, path, description in zip(names, weight_paths, descriptions, strict=True):
        generator = load_generator(path)
        folder = _Folder(Path(output_dir) / name, path, tile_size, data, save_images)
        measured = {}
        for protocol in protocols:
            found = _measure(generator, name, protocol, pairs, folder, data, batch_size)
            if found:
                measured[protocol] = found
        if not measured:
            raise BadImage(f"none of {len(pairs)} pairs can be used; the first: {data.problems(pairs)[0]}")
        rows = [row for found in measured.values() for row in found]
        folder.finish(rows)
        result = Result(name, folder.path, measured, {key: _by_sequence(found) for key, found in measured.items()})
        about = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": list(command),
            "weights": {"path": str(path), "sha256": folder.weights_sha256, **description},
            "data": {
                "folder": str(data_dir),
                "blur": blur,
                "n_pairs": len(pairs),
                "n_pairs_found": len(all_pairs),
                "sha256": data.sha256(rows),
            },
            "tile_size": tile_size,
            "batch_size": batch_size,
            "versions": _versions(),
            "device": str(generator.weights[0].value.device),
        }
        problems = unmatched_lines + data.problems(pairs)
        _write_json(result, about, problems)
        _write_page(result, about, problems, generator, folder, data)
        results.append(result)
    if len(results) > 1:
        _write_comparison(Path(output_dir) / "comparison.csv", results)
    return results, problems


def _names(weight_paths):
    """A name for each weight file: its stem, with its folder's name in front where stems are shared."""
    paths = [Path(path) for path in weight_paths]
    stems = [path.stem for path in paths]
    names = [
        stem if stems.count(stem) == 1 else f"{path.resolve().parent.name}_{stem}"
        for path, stem in zip(paths, stems, strict=True)
    ]
    for name in names:
        if names.count(name) > 1:
            same = [str(path) for path, other in zip(paths, names, strict=True) if other == name]
            raise BadWeights(f"{' and '.join(same)}: would both be called {name} in the results; rename one")
    return names


class _Data:
    """What was found out about the files of the pairs, kept from one protocol and weight file to the next."""

    def __init__(self, pairs):
        self.pairs = {(pair.sequence, pair.name): pair for pair in pairs}
        self.bad = {}  # from (protocol, pair) to the line that says why
        self.blurred_scores = {}
        self._digests = {}

    def digest(self, pair):
        """str, sha256 of the content of both files.

        Raises:
            OSError: if one cannot be read.
        """
        if pair not in self._digests:
            contents = "".join(_sha256(path) for path in (pair.blurred, pair.sharp))
            self._digests[pair] = hashlib.sha256(contents.encode()).hexdigest()
        return self._digests[pair]

    def sha256(self, rows):
        digests = sorted({self.digest(self.pairs[row.pair_id]) for row in rows})
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def problems(self, pairs):
        lines = [line for (_, pair), line in self.bad.items() if pair in pairs]
        return list(dict.fromkeys(lines))


class _Folder:
    """The folder of one weight file's results, with the journal that lets an interrupted run go on."""

    def __init__(self, path, weight_path, tile_size, data, save_images):
        self.path = path
        self.weights_sha256 = _sha256(weight_path)
        self.tile_size = tile_size
        self._save_images = save_images
        self._settings = [DEFINITIONS, self.weights_sha256, tile_size, _versions()]
        self._data = data
        self._kept = {}
        (path / "thumbnails").mkdir(parents=True, exist_ok=True)
        for row in _read_rows(path / CSV_NAME):
            pair = data.pairs.get(row.pair_id)
            with suppress(OSError):
                if pair is not None and row.protocol in PROTOCOLS and row.key == self.key(pair, row.protocol):
                    self._kept[row.protocol, pair] = row
        # Also cuts off a last line that an interruption left unfinished.
        self._write(self._kept.values())

    def key(self, pair, protocol):
        content = json.dumps([*self._settings, protocol, self._data.digest(pair)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def thumbnail(self, row):
        return self.path / "thumbnails" / f"{row.key}.jpg"

    def restored(self, protocol, pair):
        return self.path / "restored" / protocol / pair.sequence / f"{pair.name}.png"

    def measured(self, pair, protocol):
        """The row of an earlier run, or None where there is none or a picture that belongs to it is missing."""
        row = self._kept.get((protocol, pair))
        if row is None or not self.thumbnail(row).exists():
            return None
        if self._save_images and not self.restored(protocol, pair).exists():
            return None
        return row

    def add(self, row, pair, restored):
        write_bytes(self.thumbnail(row), thumbnail(restored))
        path = self.restored(row.protocol, pair)
        # A picture of other weights must not be taken for one of these.
        path.unlink(missing_ok=True)
        if self._save_images:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_photograph(path, Photograph(restored))
        self._kept[row.protocol, pair] = row
        # One write call for one line: whatever kills the process leaves every earlier line whole.
        with open(self.path / CSV_NAME, "ab", buffering=0) as file:
            file.write(_csv([_fields(row)]))

    def finish(self, rows):
        """Puts `metrics.csv` in order, the rows of this call first, and drops thumbnails that no row has."""
        asked_for = {(row.protocol, row.pair_id) for row in rows}
        others = [row for row in self._kept.values() if (row.protocol, row.pair_id) not in asked_for]
        self._write([*rows, *others])
        needed = {self.thumbnail(row) for row in self._kept.values()}
        for path in (self.path / "thumbnails").glob("*.jpg"):
            if path not in needed:
                path.unlink()

    def _write(self, rows):
        write_bytes(self.path / CSV_NAME, _csv([COLUMNS, *map(_fields, rows)]))


COLUMNS = [
    "protocol",
    "sequence",
    "name",
    "height",
    "width",
    *(f"{name}_{kind}" for name in METRICS for kind in KINDS),
    "seconds",
    "key",
]


def _csv(lines):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode(errors="surrogateescape")  # file names need not be text


def _fields(row):
    scores = [getattr(row, kind)[name] for name in METRICS for kind in KINDS]
    return [row.protocol, row.sequence, row.name, row.height, row.width, *scores, row.seconds, row.key]


def _read_rows(path):
    """The rows of a `metrics.csv`, without those that are damaged; none where the file is missing or another."""
    try:
        with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != COLUMNS:
                return []
            return [row for row in map(_row, reader) if row is not None]
    except (FileNotFoundError, csv.Error):
        return []


def _row(fields):
    try:
        scores = [{name: float(fields[f"{name}_{kind}"]) for name in METRICS} for kind in ("blurred", "restored")]
        size = int(fields["height"]), int(fields["width"])
        identity = fields["protocol"], fields["sequence"], fields["name"]
        return Row(*identity, *size, *scores, float(fields["seconds"]), fields["key"])
    except (TypeError, ValueError):
        return None


def _measure(generator, name, protocol, pairs, folder, data, batch_size):
    """Measures what is not measured yet; returns the rows of all usable pairs, in their order."""
    rows, batch = {}, []
    psnrs = {"blurred": [], "restored": []}
    with (
        tqdm(total=len(pairs), desc=f"{name}, {protocol}", unit="pair") as progress,
        ThreadPoolExecutor(os.cpu_count()) as threads,
    ):

        def add(found):
            rows.update(found)
            for row in found.values():
                data.blurred_scores[protocol, data.pairs[row.pair_id]] = row.blurred
                if not row.perfect:
                    psnrs["blurred"].append(row.blurred["psnr"])
                    psnrs["restored"].append(row.restored["psnr"])
            if psnrs["blurred"]:
                means = [f"{np.mean(values):.2f}" for values in psnrs.values()]
                progress.set_postfix_str(f"PSNR {means[0]} -> {means[1]} dB", refresh=False)
            progress.update(len(found))

        def measure_batch():
            if batch:
                add(_measure_batch(generator, protocol, batch, folder, data, threads))
                batch.clear()

        for pair in pairs:
            row = folder.measured(pair, protocol)
            if row is not None:
                add({pair: row})
                continue
            try:
                data.digest(pair)
                images = read_pair(pair, protocol)
            except (BadImage, OSError) as error:
                line = str(error) if isinstance(error, BadImage) else f"{error.filename}: {error.strerror}"
                data.bad[protocol, pair] = line
                progress.update()
                continue
            if batch and batch[0][1].shape != images[0].shape:
                measure_batch()
            batch.append((pair, *images))
            if len(batch) == batch_size:
                measure_batch()
        measure_batch()
    return [rows[pair] for pair in pairs if pair in rows]


def _measure_batch(generator, protocol, batch, folder, data, threads):
    start = time.perf_counter()
    all_restored = _restore(generator, np.stack([blurred for _, blurred, _ in batch]), folder.tile_size)
    seconds = round((time.perf_counter() - start) / len(batch), 4)

    def start_scoring(sharp, image):
        return {metric: threads.submit(METRICS[metric].score, sharp, image) for metric in METRICS}

    scores = []
    for (pair, blurred, sharp), restored in zip(batch, all_restored, strict=True):
        known = data.blurred_scores.get((protocol, pair))
        scores.append((known, {} if known else start_scoring(sharp, blurred), start_scoring(sharp, restored)))
    rows = {}
    for (pair, blurred, _), restored, (known, *started) in zip(batch, all_restored, scores, strict=True):
        of_blurred, of_restored = ({name: score.result() for name, score in futures.items()} for futures in started)
        size, key = blurred.shape[:2], folder.key(pair, protocol)
        rows[pair] = Row(protocol, pair.sequence, pair.name, *size, known or of_blurred, of_restored, seconds, key)
        folder.add(rows[pair], pair, restored)
    return rows


def _restore(generator, blurred, tile_size):
    height, width = blurred.shape[1:3]
    if tile_size is None and height * width <= WHOLE_IMAGE_PIXELS:
        # `deblur` counts the pixels of the whole batch; here each image is to be treated as it would be alone.
        tile_size = max(height, width, SMALLEST_SIDE)
    return deblur(generator, blurred, tile_size)


def _by_sequence(rows):
    sequences = defaultdict(list)
    for row in rows:
        sequences[row.sequence].append(row)
    per_sequence = {name: summarize(found) for name, found in sequences.items()} if set(sequences) != {""} else {}
    return {"overall": summarize(rows), "sequences": per_sequence}


def format_table(result):
    """The scores of one weight file as Markdown tables, one for each protocol, that can also be read as they are.

    Args:
        result: `Result`.

    Returns:
        str.
    """
    parts = []
    for protocol, summary in result.summaries.items():
        overall = summary["overall"]
        parts.append(
            f"Protocol {protocol}: {PROTOCOLS[protocol].description}\n"
            f"{overall['n_images']} images, {overall['seconds_per_image']:.3g} s per image (median, deblurring alone)"
        )
        parts.append(_markdown(_means(summary), n_text=3, right=(1,)))
        if overall["n_perfect"]:
            parts.append(_perfect_note(overall))
    return "\n\n".join(parts)


def _means(summary):
    """The means of one protocol as lines of cells, the first of them the header."""
    lines = [["sequence", "images", "", *(metric.label for metric in METRICS.values())]]
    for sequence, means in [*summary["sequences"].items(), ("all", summary["overall"])]:
        for kind in KINDS:
            first = [sequence, str(means["n_images"])] if kind == "blurred" else ["", ""]
            lines.append([*first, LABELS[kind], *(_shown(name, kind, means) for name in METRICS)])
    return lines


LABELS = {"blurred": "blurred input", "restored": "restored", "gain": "gain"}


def _perfect_note(summary):
    return (
        f"{summary['n_perfect']} of {summary['n_images']} images equal their sharp version before or after restoring: "
        "their PSNR is infinite and left out of the means of PSNR."
    )


def format_comparison(results):
    """One Markdown table of several weight files: a row for each protocol and file, and for the blurred input.

    Args:
        results: list of `Result` of one call of `evaluate`.

    Returns:
        str.
    """
    lines = [["protocol", "weights", *(metric.label for metric in METRICS.values()), "gain [dB]", "s per image"]]
    for protocol in results[0].summaries:
        summaries = [(result.name, result.summaries[protocol]["overall"]) for result in results]
        scores = [_shown(metric, "blurred", summaries[0][1]) for metric in METRICS]
        lines.append([protocol, LABELS["blurred"], *scores, "", ""])
        for name, means in summaries:
            scores = [_shown(metric, "restored", means) for metric in METRICS]
            lines.append(["", name, *scores, _shown("psnr", "gain", means), f"{means['seconds_per_image']:.3g}"])
    return _markdown(lines, n_text=2)


def _shown(name, kind, means):
    value = means[kind][name]
    if value is None:
        return "-"
    return f"{value:{'+' if kind == 'gain' else ''}.{METRICS[name].digits}f}"


def _markdown(lines, n_text, right=()):
    """Cells to a Markdown table with aligned columns; the first `n_text` are text, numbers follow."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = [i < n_text and i not in right for i in range(len(widths))]

    def line(cells):
        padded = [
            cell.ljust(w) if to_left else cell.rjust(w) for cell, w, to_left in zip(cells, widths, left, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    rule = [f"{'-' * (w + 1)}-" if to_left else f"{'-' * (w + 1)}:" for w, to_left in zip(widths, left, strict=True)]
    return "\n".join([line(lines[0]), f"|{'|'.join(rule)}|", *map(line, lines[1:])])


def _write_comparison(path, results):
    lines = [["weights", "protocol", "n_images", *(f"{name}_{kind}" for name in METRICS for kind in KINDS), "seconds"]]
    for result in results:
        for protocol, summary in result.summaries.items():
            means = summary["overall"]
            scores = [means[kind][name] for name in METRICS for kind in KINDS]
            lines.append([result.name, protocol, means["n_images"], *scores, means["seconds_per_image"]])
    write_bytes(path, _csv(lines))


def _write_json(result, about, problems):
    protocols = {
        protocol: {"description": PROTOCOLS[protocol].description, **summary}
        for protocol, summary in result.summaries.items()
    }
    metrics = {name: metric.definition for name, metric in METRICS.items()}
    content = {**about, "metrics": metrics, "protocols": protocols, "problems": problems}
    write_bytes(result.folder / JSON_NAME, json.dumps(content, indent=2, allow_nan=False).encode())


def _write_page(result, about, problems, generator, folder, data):
    sections = []
    for protocol, rows in result.rows.items():
        summary = result.summaries[protocol]
        overall = summary["overall"]
        notes = [
            f"{overall['n_images']} images, {overall['seconds_per_image']:.3g} seconds per image (median, deblurring "
            "alone). Means count every image the same."
        ]
        if overall["n_perfect"]:
            notes.append(_perfect_note(overall))
        sections.append(
            Section(
                protocol,
                PROTOCOLS[protocol].description,
                notes,
                _means(summary),
                _examples(rows, generator, folder, data),
                COLUMNS_SHOWN,
                [(folder.thumbnail(row), _cells(row)) for row in rows],
            )
        )
    facts = {
        "Weights": f"{about['weights']['path']} (sha256 {about['weights']['sha256']})",
        "Network": ", ".join(f"{key} {about['weights'][key]}" for key in ("architecture", "ngf", "n_blocks")),
        "Data": f"{about['data']['folder']}, {about['data']['n_pairs']} of {about['data']['n_pairs_found']} pairs "
        f"(sha256 {about['data']['sha256']})",
        "Tiles": f"{folder.tile_size} pixels" if folder.tile_size else "none asked for",
        "Measured": f"{about['created']} on {about['device']} with "
        + ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
        "Command": " ".join(about["command"]),
    }
    definitions = {metric.label: metric.definition for metric in METRICS.values()}
    with whole_file(folder.path / PAGE_NAME) as temporary:
        write_page(temporary, f"Deblurring with {result.name}", facts, definitions, sections, problems)


def _examples(rows, generator, folder, data):
    """The pairs with the best, the median and the worst gain in PSNR, restored once more to be looked at."""
    ranked = sorted((row for row in rows if not row.perfect), key=lambda row: row.gain["psnr"])
    places = {"Best gain": len(ranked) - 1, "Median gain": len(ranked) // 2, "Worst gain": 0}
    examples, shown = [], set()
    for title, place in places.items():
        if not ranked or place in shown:
            continue
        shown.add(place)
        row = ranked[place]
        blurred, sharp = read_pair(data.pairs[row.pair_id], row.protocol)
        restored = _restore(generator, blurred[None], folder.tile_size)[0]
        scores = ", ".join(
            f"{METRICS[metric].label} {row.blurred[metric]:.{METRICS[metric].digits}f} to "
            f"{row.restored[metric]:.{METRICS[metric].digits}f} ({row.gain[metric]:+.{METRICS[metric].digits}f})"
            for metric in ("psnr", "ssim")
        )
        examples.append(Example(title, f"{_full_name(row)}: {scores}", sharp, blurred, restored))
    return examples


COLUMNS_SHOWN = ["name", "size", *(f"{METRICS[name].label} {kind}" for name in ("psnr", "ssim") for kind in KINDS)]


def _full_name(row):
    return f"{row.sequence}/{row.name}" if row.sequence else row.name


def _cells(row):
    """The line of an image in the table of the page, under `COLUMNS_SHOWN`: texts, and what to sort them by."""
    cells = [(_full_name(row), _full_name(row)), (f"{row.width}x{row.height}", row.width * row.height)]
    for name in ("psnr", "ssim"):
        for kind in KINDS:
            value = getattr(row, kind)[name]
            cells.append((f"{value:{'+' if kind == 'gain' else ''}.{METRICS[name].digits}f}", value))
    return cells


def _versions():
    backend = keras.backend.backend()
    return {
        "deblur_gan": __version__,
        "keras": keras.__version__,
        backend: importlib.import_module(backend).__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "scikit-image": skimage.__version__,
        "scipy": scipy.__version__,
    }


def _sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
