"""Keeps the rows of one weight file on disk as soon as they are measured, so that an interrupted run can resume.

`metrics.csv` is both a table for people and the journal. Names in it are as `printable` returns them; a key joins
a row to its pair.
"""

import csv
import hashlib
import json
from collections import defaultdict
from contextlib import suppress

import PIL
import scipy
import skimage

from deblur_gan.backend import versions
from deblur_gan.evaluation.measure import KINDS, PROTOCOLS, Row
from deblur_gan.evaluation.metrics import DEFINITIONS, METRICS
from deblur_gan.evaluation.report import thumbnail
from deblur_gan.files import csv_bytes, printable, sha256_of, write_bytes
from deblur_gan.images.photographs import BadImage, Photograph, write_photograph

CSV_NAME = "metrics.csv"

SCORE_COLUMNS = [f"{name}_{kind}" for name in METRICS for kind in KINDS]
COLUMNS = ["protocol", "sequence", "name", "height", "width", *SCORE_COLUMNS, "seconds", "weights", "key"]
_KEY_LENGTH = 16


class PairFiles:
    """Finds pairs by `Row.pair_id`, and computes the sha256 of their files once for all protocols and weight files.

    `shown` finds pairs by a `pair_id` as `metrics.csv` contains it: a list, rarely of more than one. Raises BadImage if
    two pairs have one `pair_id`, as one of them would get the scores of the other.
    """

    def __init__(self, pairs):
        self.pairs = {}
        self.shown = defaultdict(list)
        for pair in pairs:
            other = self.pairs.setdefault((pair.sequence, pair.name), pair)
            if other is not pair:
                name = "/".join(filter(None, (pair.sequence, pair.name)))
                files = (other.blurred, pair.blurred) if other.blurred != pair.blurred else (other.sharp, pair.sharp)
                raise BadImage(f"{name}: is the name of both {files[0]} and {files[1]}; measure one of them at a time")
            self.shown[printable(pair.sequence), printable(pair.name)].append(pair)
        self._digests = {}

    def digest(self, pair):
        """Returns the sha256 of the content of both files, str."""
        if pair not in self._digests:
            contents = "".join(sha256_of(path) for path in (pair.blurred, pair.sharp))
            self._digests[pair] = hashlib.sha256(contents.encode()).hexdigest()
        return self._digests[pair]

    def sha256(self, rows):
        """Returns the sha256 of all files that these rows were measured on, in any order, str."""
        digests = sorted({self.digest(self.pairs[row.pair_id]) for row in rows})
        return hashlib.sha256("".join(digests).encode()).hexdigest()


class Journal:
    """Reads and writes a folder with the rows of one weight file and their pictures; it is made if it does not exist.

    `how` is a dict of the arguments of `measure`, besides the protocol, that change a score; `dtype` is what the
    generator was built with; `save_images` also keeps the restored images.

    `outdated` is a list of the rows, as lists of str, that have the names of these pairs, but were measured on other
    photographs or with other settings. They stay until `finish`, and rows of other pairs stay after it.
    """

    def __init__(self, path, weights_sha256, how, dtype, files, save_images):
        self.path = path
        self._weights_sha256 = weights_sha256
        self._save_images = save_images
        self._settings = [DEFINITIONS, weights_sha256, how, dtype, score_versions()]
        self._files = files
        self._kept = {}
        self.outdated, self._elsewhere = [], []
        (path / "thumbnails").mkdir(parents=True, exist_ok=True)
        for shown, cells in _read_rows(path / CSV_NAME):
            pairs = files.shown.get(shown.pair_id, ())
            kept = self._valid(shown, cells[-1], pairs)
            self._kept |= kept
            if not kept:
                (self.outdated if pairs else self._elsewhere).append(cells)
        # Also cuts off a last line that an interruption left unfinished.
        self._write(self._kept.values())

    def _valid(self, shown, key, pairs):
        """Returns the row of a `metrics.csv` as a dict like `_kept`, with the names of its pair; empty if outdated."""
        kept = {}
        for pair in pairs:
            row = shown._replace(sequence=pair.sequence, name=pair.name)
            with suppress(OSError):
                if row.protocol in PROTOCOLS and key == self._key(row):
                    kept[row.protocol, row.pair_id] = row
        return kept

    def _key(self, row):
        """Returns a str that depends on all that decides a score: weights, settings, versions, protocol, both files."""
        digest = self._files.digest(self._files.pairs[row.pair_id])
        content = json.dumps([*self._settings, row.protocol, digest], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:_KEY_LENGTH]

    def thumbnail(self, row):
        """Returns the path of the small restored image of a row."""
        return self.path / "thumbnails" / f"{self._key(row)}.jpg"

    def _restored(self, row):
        return self.path / "restored" / row.protocol / row.sequence / f"{row.name}.png"

    def row(self, protocol, pair):
        """Returns the row of an earlier run, or None if there is none or its picture is missing."""
        row = self._kept.get((protocol, (pair.sequence, pair.name)))
        if row and self.thumbnail(row).exists() and (self._restored(row).exists() or not self._save_images):
            return row
        return None

    def add(self, row, restored):
        """Writes a row and its restored image, uint8 `(h, w, 3)`, to disk."""
        write_bytes(self.thumbnail(row), thumbnail(restored))
        path = self._restored(row)
        # A picture of other weights must not pass for one of these.
        path.unlink(missing_ok=True)
        if self._save_images:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_photograph(path, Photograph(restored))
        self._kept[row.protocol, row.pair_id] = row
        # One write call for one line: whatever kills the process leaves every earlier line whole.
        with open(self.path / CSV_NAME, "ab", buffering=0) as file:
            file.write(csv_bytes([self._fields(row)]))

    def finish(self, rows):
        """Sorts `metrics.csv`, the rows of this call first, without outdated ones; deletes thumbnails of no row."""
        asked_for = {(row.protocol, row.pair_id) for row in rows}
        self.outdated = []
        self._write([*rows, *(row for where, row in self._kept.items() if where not in asked_for)])
        needed = {*map(self._key, self._kept.values()), *(cells[-1] for cells in self._elsewhere)}
        for path in (self.path / "thumbnails").glob("*.jpg"):
            if path.stem not in needed:
                path.unlink()

    def _write(self, rows):
        rows = [*map(self._fields, rows), *self.outdated, *self._elsewhere]
        write_bytes(self.path / CSV_NAME, csv_bytes([COLUMNS, *rows]))

    def _fields(self, row):
        scores = [getattr(row, kind)[name] for name in METRICS for kind in KINDS]
        names = printable(row.sequence), printable(row.name)
        return [row.protocol, *names, row.height, row.width, *scores, row.seconds, self._weights_sha256, self._key(row)]


def owner(folder):
    """Returns the sha256 of the weights whose results a folder contains; None without results, "" if not ours."""
    try:
        with open(folder / CSV_NAME, newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.DictReader(file)
            return "" if reader.fieldnames not in (None, COLUMNS) else next((row["weights"] for row in reader), None)
    except FileNotFoundError:
        return None
    except csv.Error:
        return ""


def _read_rows(path):
    """Returns `(row, list of its cells)` for each row of a `metrics.csv` that is whole; nothing if it is missing."""
    rows = []
    with suppress(FileNotFoundError, csv.Error), open(path, newline="", encoding="utf-8", errors="replace") as file:
        for fields in csv.DictReader(file):
            with suppress(KeyError, TypeError, ValueError):
                scores = [{name: float(fields[f"{name}_{kind}"]) for name in METRICS} for kind in KINDS[:2]]
                size = int(fields["height"]), int(fields["width"])
                identity = fields["protocol"], fields["sequence"], fields["name"]
                row = Row(*identity, *size, *scores, float(fields["seconds"]))
                if len(fields["key"]) == _KEY_LENGTH:  # the last column, so that nothing of the line is missing
                    rows.append((row, [fields[column] for column in COLUMNS]))
    return rows


def score_versions():
    """Returns the versions of the libraries that a score may depend on, dict from str to str."""
    libraries = {"pillow": PIL, "scikit-image": skimage, "scipy": scipy}
    return {**versions(), **{name: library.__version__ for name, library in libraries.items()}}
