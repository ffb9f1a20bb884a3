"""Folders of results: every score on disk as soon as it is measured, then tables, `metrics.json` and a page to look at.

A folder belongs to one weight file. Its `metrics.csv` is a journal, from which an interrupted run goes on.
"""

import csv
import hashlib
import importlib
import io
import json
import math
from collections import defaultdict
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import PIL
import scipy
import skimage
from tqdm import tqdm

from deblur_gan import __version__
from deblur_gan.evaluation import KINDS, PROTOCOLS, Row, measure, restore_pair, summarize
from deblur_gan.files import locked, printable, whole_file, write_bytes
from deblur_gan.metrics import DEFINITIONS, METRICS
from deblur_gan.pairs import find_pairs
from deblur_gan.photographs import BadImage, Photograph, write_photograph
from deblur_gan.report import Example, Section, thumbnail, write_page
from deblur_gan.weights import BadWeights, describe, load_generator

CSV_NAME, JSON_NAME, PAGE_NAME = "metrics.csv", "metrics.json", "index.html"


class Result(NamedTuple):
    """What `evaluate` found out about one weight file.

    Attributes:
        name: str, of the folder.
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

    For each weight file a folder below `output_dir` is filled: `metrics.csv` (one row for each pair and protocol,
    written as soon as it is measured), `metrics.json` (means, protocols, sha256, versions) and `index.html` (the same
    to look at, in one file). With several weight files, `<output_dir>/comparison.csv` too.

    The folder has the name of the file without its extension. Where that holds the results of other weights, or
    several of `weight_paths` share it, the name of the file's own folder goes in front (`<run>_generator_best`), and
    where that is taken too, the beginning of the sha256 goes behind.

    A run that was interrupted goes on where it stopped. A row of `metrics.csv` is used again only if the weights, the
    content of both photographs, `tile_size` and the versions of the libraries are those it was measured with; other
    rows are measured again. Rows that are still valid but not asked for stay in `metrics.csv` alone.

    Args:
        weight_paths: list of str or Path, generators.
        data_dir: str or Path, see `find_pairs`.
        output_dir: str or Path; made where it does not exist.
        protocols: sequence of keys of `PROTOCOLS`.
        n_images: int, take so many pairs, evenly spread over all; None takes all.
        batch_size, tile_size: as `measure`.
        blur: "blur" or "blur_gamma", see `find_pairs`.
        save_images: bool, also write the restored images, as PNG under `restored/<protocol>/<sequence>/`.
        command: sequence of str, the command line, for `metrics.json`.

    Returns:
        `(results, problems)`: list of `Result`, and list of str, one line for each file that could not be used.

    Raises:
        NotADirectoryError: as `find_pairs`.
        BadWeights: as `load_generator`; if a weight file is given twice, or its answer is not finite.
        BadImage: if no pair can be used.
        ValueError: if an argument is outside what is said above.
        OSError: if results cannot be written; BlockingIOError if another process is writing them.
    """
    if not weight_paths:
        raise ValueError("weight_paths is empty: at least one weight file is required")
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

    all_pairs, unmatched = find_pairs(data_dir, blur)
    if not all_pairs:
        raise BadImage(f"{data_dir}: no photograph has both a blurred and a sharp version")
    n_images = min(n_images or len(all_pairs), len(all_pairs))
    pairs = [all_pairs[i * len(all_pairs) // n_images] for i in range(n_images)]

    data = _Data(all_pairs)
    results = []
    with ExitStack() as locks:
        folders = _take_folders(Path(output_dir), weight_paths, locks)
        for path, description, (folder, sha256) in zip(weight_paths, descriptions, folders, strict=True):
            problems = [f"{left}: has no counterpart of the same name, or more than one" for left in unmatched]
            generator = load_generator(path)
            journal = _Journal(folder, sha256, tile_size, data, save_images)
            try:
                measured = {
                    protocol: _measure(generator, protocol, pairs, journal, data, batch_size, problems)
                    for protocol in protocols
                }
                measured = {protocol: rows for protocol, rows in measured.items() if rows}
                if not measured:
                    raise BadImage(f"none of {len(pairs)} pairs can be used; the first: {problems[len(unmatched)]}")
                rows = [row for found in measured.values() for row in found]
                journal.finish(rows)
                examples = {
                    protocol: _examples(found, generator, data, tile_size) for protocol, found in measured.items()
                }
            except FloatingPointError as error:
                raise BadWeights(f"{path}: {error}") from None
            problems = list(dict.fromkeys(map(printable, problems)))
            result = Result(
                folder.name, folder, measured, {key: _by_sequence(found) for key, found in measured.items()}
            )
            about = {
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": list(command),
                # What a file says about itself comes first, so that it cannot pass for what was found out.
                "weights": {**description, "path": str(path), "sha256": sha256},
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
            _write_json(result, about, problems)
            _write_page(result, about, problems, examples, journal)
            results.append(result)
        if len(results) > 1:
            _write_comparison(Path(output_dir) / "comparison.csv", results)
    return results, problems


def _take_folders(output_dir, weight_paths, locks):
    """Finds, makes and locks a folder for each weight file; returns a list of `(folder, sha256 of the weights)`."""
    paths = [Path(path) for path in weight_paths]
    resolved, stems = [path.resolve() for path in paths], [path.stem for path in paths]
    taken = {}
    for path, real, stem in zip(paths, resolved, stems, strict=True):
        if resolved.count(real) > 1:
            raise BadWeights(f"{path}: is given twice")
        sha256 = _sha256(path)
        names = [stem, f"{real.parent.name}_{stem}", f"{stem}_{sha256[:8]}"]
        if stems.count(stem) > 1:
            del names[0]
        free = (output_dir / name for name in names if output_dir / name not in taken)
        folder = next((folder for folder in free if _owner(folder) in (None, sha256)), None)
        if folder is None:
            raise BadWeights(f"{path}: {output_dir} holds {', '.join(names)} of other weights; take another folder")
        folder.mkdir(parents=True, exist_ok=True)
        locks.enter_context(locked(folder))
        taken[folder] = sha256
    return list(taken.items())


def _owner(folder):
    """sha256 of the weights whose results a folder holds; None if there are none, "" if they are not from here."""
    try:
        with open(folder / CSV_NAME, newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.DictReader(file)
            return "" if reader.fieldnames not in (None, COLUMNS) else next((row["weights"] for row in reader), None)
    except FileNotFoundError:
        return None
    except csv.Error:
        return ""


class _Data:
    """What was found out about the files of the pairs, kept from one protocol and weight file to the next."""

    def __init__(self, pairs):
        self.pairs = {(pair.sequence, pair.name): pair for pair in pairs}
        self.shown = defaultdict(list)  # pairs by what `metrics.csv` shows of their names, rarely more than one
        for pair in pairs:
            self.shown[printable(pair.sequence), printable(pair.name)].append(pair)
        self.blurred_scores = defaultdict(dict)  # of each protocol, see `measure`
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


class _Journal:
    """The rows of one weight file, on disk as soon as they are measured, and the pictures that belong to them."""

    def __init__(self, path, weights_sha256, tile_size, data, save_images):
        self.path = path
        self.tile_size = tile_size
        self._weights_sha256 = weights_sha256
        self._save_images = save_images
        self._settings = [DEFINITIONS, weights_sha256, tile_size, _versions()]
        self._data = data
        self._kept = {}
        (path / "thumbnails").mkdir(parents=True, exist_ok=True)
        for shown, key in _read_rows(path / CSV_NAME):
            for pair in data.shown[shown.pair_id]:
                row = shown._replace(sequence=pair.sequence, name=pair.name)
                with suppress(OSError):
                    if row.protocol in PROTOCOLS and key == self._key(row):
                        self._kept[row.protocol, row.pair_id] = row
        # Also cuts off a last line that an interruption left unfinished.
        self._write(self._kept.values())

    def _key(self, row):
        """str that tells what was measured, with what: weights, settings, versions, protocol and both files."""
        digest = self._data.digest(self._data.pairs[row.pair_id])
        content = json.dumps([*self._settings, row.protocol, digest], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def thumbnail(self, row):
        return self.path / "thumbnails" / f"{self._key(row)}.jpg"

    def _restored(self, row):
        return self.path / "restored" / row.protocol / row.sequence / f"{row.name}.png"

    def row(self, protocol, pair):
        """The row of an earlier run, or None where there is none or a picture that belongs to it is missing."""
        row = self._kept.get((protocol, (pair.sequence, pair.name)))
        if row is None or not self.thumbnail(row).exists():
            return None
        return None if self._save_images and not self._restored(row).exists() else row

    def add(self, row, restored):
        write_bytes(self.thumbnail(row), thumbnail(restored))
        path = self._restored(row)
        # A picture of other weights must not be taken for one of these.
        path.unlink(missing_ok=True)
        if self._save_images:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_photograph(path, Photograph(restored))
        self._kept[row.protocol, row.pair_id] = row
        # One write call for one line: whatever kills the process leaves every earlier line whole.
        with open(self.path / CSV_NAME, "ab", buffering=0) as file:
            file.write(_csv([self._fields(row)]))

    def finish(self, rows):
        """Puts `metrics.csv` in order, the rows of this call first, and drops thumbnails that no row has."""
        asked_for = {(row.protocol, row.pair_id) for row in rows}
        self._write([*rows, *(row for where, row in self._kept.items() if where not in asked_for)])
        needed = {self.thumbnail(row) for row in self._kept.values()}
        for path in (self.path / "thumbnails").glob("*.jpg"):
            if path not in needed:
                path.unlink()

    def _write(self, rows):
        write_bytes(self.path / CSV_NAME, _csv([COLUMNS, *map(self._fields, rows)]))

    def _fields(self, row):
        scores = [getattr(row, kind)[name] for name in METRICS for kind in KINDS]
        names = printable(row.sequence), printable(row.name)
        return [row.protocol, *names, row.height, row.width, *scores, row.seconds, self._weights_sha256, self._key(row)]


SCORE_COLUMNS = [f"{name}_{kind}" for name in METRICS for kind in KINDS]
COLUMNS = ["protocol", "sequence", "name", "height", "width", *SCORE_COLUMNS, "seconds", "weights", "key"]


def _csv(lines):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def _read_rows(path):
    """The `(row, key)` of a `metrics.csv`, without those that are damaged; none where the file is missing."""
    rows = []
    with suppress(FileNotFoundError, csv.Error), open(path, newline="", encoding="utf-8", errors="replace") as file:
        for fields in csv.DictReader(file):
            with suppress(KeyError, TypeError, ValueError):
                scores = [{name: float(fields[f"{name}_{kind}"]) for name in METRICS} for kind in KINDS[:2]]
                size = int(fields["height"]), int(fields["width"])
                identity = fields["protocol"], fields["sequence"], fields["name"]
                rows.append((Row(*identity, *size, *scores, float(fields["seconds"])), fields["key"]))
    return rows


def _measure(generator, protocol, pairs, journal, data, batch_size, problems):
    """Measures what is not measured yet; returns the rows of all usable pairs, in their order."""
    rows = {}
    psnrs = {"blurred": [], "restored": []}

    def add(row):
        rows[row.pair_id] = row
        if not row.perfect:
            for kind, values in psnrs.items():
                values.append(getattr(row, kind)["psnr"])
            means = [f"{np.mean(values):.2f}" for values in psnrs.values()]
            progress.set_postfix_str(f"PSNR {means[0]} -> {means[1]} dB", refresh=False)

    def unmeasured():
        for pair in progress:
            row = journal.row(protocol, pair)
            if row is None:
                yield pair
            else:
                data.blurred_scores[protocol][row.pair_id] = row.blurred
                add(row)

    with tqdm(pairs, desc=f"{journal.path.name}, {protocol}", unit="pair") as progress:
        for row in measure(
            generator,
            unmeasured(),
            protocol,
            tile_size=journal.tile_size,
            batch_size=batch_size,
            blurred_scores=data.blurred_scores[protocol],
            problems=problems,
            on_restored=journal.add,
        ):
            add(row)
    return [rows[pair.sequence, pair.name] for pair in pairs if (pair.sequence, pair.name) in rows]


def _by_sequence(rows):
    sequences = defaultdict(list)
    for row in rows:
        sequences[row.sequence].append(row)
    per_sequence = {name: summarize(found) for name, found in sequences.items()} if set(sequences) != {""} else {}
    return {"overall": summarize(rows), "sequences": per_sequence}


def _write_comparison(path, results):
    lines = [["weights", "protocol", "n_images", *SCORE_COLUMNS, "seconds"]]
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
    write_bytes(result.folder / JSON_NAME, json.dumps(_plain(content), indent=2, allow_nan=False).encode())


def _plain(value, depth=0):
    """What JSON can hold of a value: a weight file may say anything about itself."""
    if isinstance(value, dict) and depth < 20:
        return {printable(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple) and depth < 20:
        return [_plain(item, depth + 1) for item in value]
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return printable(value)


def _write_page(result, about, problems, examples, journal):
    sections = [
        Section(
            protocol, result.summaries[protocol], [(row, journal.thumbnail(row)) for row in rows], examples[protocol]
        )
        for protocol, rows in result.rows.items()
    ]
    weights, data, versions = about["weights"], about["data"], about["versions"]
    facts = {
        "Weights": f"{weights['path']} (sha256 {weights['sha256']})",
        "Network": ", ".join(f"{key} {weights[key]}" for key in ("architecture", "ngf", "n_blocks")),
        "Data": f"{data['folder']}, {data['n_pairs']} of {data['n_pairs_found']} pairs (sha256 {data['sha256']})",
        "Tiles": f"{about['tile_size']} pixels" if about["tile_size"] else "none asked for",
        "Measured": f"{about['created']} on {about['device']} with {', '.join(map(' '.join, versions.items()))}",
        "Command": " ".join(about["command"]),
    }
    with whole_file(result.folder / PAGE_NAME) as temporary:
        write_page(temporary, f"Deblurring with {result.name}", facts, sections, problems)


def _examples(rows, generator, data, tile_size):
    """The pairs with the best, the median and the worst gain in PSNR, restored once more to be looked at."""
    ranked = sorted((row for row in rows if not row.perfect), key=lambda row: row.gain["psnr"])
    titles = {len(ranked) // 2: "Median gain", 0: "Worst gain", len(ranked) - 1: "Best gain"} if ranked else {}
    return [
        Example(
            titles[n], ranked[n], *restore_pair(generator, data.pairs[ranked[n].pair_id], ranked[n].protocol, tile_size)
        )
        for n in sorted(titles, reverse=True)
    ]


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
