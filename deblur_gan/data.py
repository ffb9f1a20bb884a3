"""Photographs on disk, their pixels in memory, the value range of the networks, pairs of blurred and sharp files, and
the batches to train on.

Inside this package an image is uint8 `(H, W, 3)` RGB; inside a network it is float32 in [-1, 1]. The two conversions
between them are here and nowhere else.
"""

import functools
import hashlib
import io
import os
import shutil
import tempfile
import warnings
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError
from tqdm import tqdm

IMAGE_EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

# Pillow itself refuses from here on; said here so that our own message names the file.
MAX_PIXELS = 2 * Image.MAX_IMAGE_PIXELS

# TIFF keeps its own layout (strips, sizes) among the tags, so only what describes the photograph is carried over.
_DESCRIPTIVE_TAGS = (
    ExifTags.Base.ImageDescription,
    ExifTags.Base.Make,
    ExifTags.Base.Model,
    ExifTags.Base.Software,
    ExifTags.Base.DateTime,
    ExifTags.Base.Artist,
    ExifTags.Base.Copyright,
)
_EXIF_FOLDERS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_LOSSLESS_TIFF_COMPRESSIONS = ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits")


class BadImage(ValueError):
    """A file that cannot be used as a photograph; the message is one line that names it and says why."""


@dataclass
class Photograph:
    """The pixels of an image file, and what its copy on disk needs beside them.

    Attributes:
        pixels: uint8 `(H, W, 3)` RGB, upright (an EXIF rotation is applied).
        alpha: uint8 `(H, W)`, or None where the file is opaque.
        grey: bool, the file holds luminance alone.
        format: str, Pillow's name of the file format, such as "JPEG".
        metadata: dict of Pillow's `save` options: `exif`, `icc_profile`, `dpi`, `compression`, where the file has them.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    format: str = "PNG"
    metadata: dict = field(default_factory=dict)


def read_photograph(path):
    """Reads an image file as people have them.

    Grey, palette, transparent, CMYK, 16-bit and EXIF-rotated files all come back as upright 8-bit RGB. 16-bit grey is
    scaled to 8 bits. CMYK is converted through its embedded profile where it has one.

    Args:
        path: str or Path of a JPEG, PNG, WebP, TIFF or BMP file; the content decides, not the extension.

    Returns:
        `Photograph`.

    Raises:
        BadImage: if the file is missing, empty, truncated, not an image, animated, larger than `MAX_PIXELS` pixels,
            or of a pixel type (floating point, 32-bit) that has no agreed conversion to 8 bits.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's notes on odd EXIF and TIFF tags and its large-image warning
            with Image.open(path) as image:
                frames = getattr(image, "n_frames", 1)
                # Phones write JPEG with a second, smaller picture behind the photograph; Pillow calls that MPO.
                if frames > 1 and image.format != "MPO":
                    raise BadImage(f"{path}: holds {frames} pictures; a file with a single one is required")
                return _photograph(image, path)
    except BadImage:
        raise
    except FileNotFoundError:
        raise BadImage(f"{path}: no such file") from None
    except IsADirectoryError:
        raise BadImage(f"{path}: is a folder; an image file is required") from None
    except PermissionError:
        raise BadImage(f"{path}: not allowed to read it") from None
    except Image.DecompressionBombError:
        raise BadImage(f"{path}: has more than the {MAX_PIXELS} pixels that are read at most") from None
    except UnidentifiedImageError:
        raise BadImage(f"{path}: not an image that can be read; JPEG, PNG, WebP, TIFF or BMP is required") from None
    # Decoders meet broken files with whatever their parser trips over.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadImage(f"{path}: cannot be decoded ({reason})") from None


def _photograph(image, path):
    metadata = {key: image.info[key] for key in ("icc_profile", "dpi") if image.info.get(key)}
    if image.info.get("compression") in _LOSSLESS_TIFF_COMPRESSIONS:
        metadata["compression"] = image.info["compression"]
    file_format = "JPEG" if image.format == "MPO" else image.format
    upright = ImageOps.exif_transpose(image)
    exif = _exif(image, file_format)
    if exif:
        metadata["exif"] = exif

    mode = upright.mode
    grey = mode in ("1", "L", "LA", "La") or mode.startswith("I;16")
    alpha = None
    if mode == "I" and image.format == "PNG":  # how some Pillow versions open a 16-bit grey PNG
        mode, grey = "I;16", True
    if mode.startswith("I;16"):
        wide = np.asarray(upright).astype(np.float32)
        upright = Image.fromarray(np.round(wide / 257).clip(0, 255).astype(np.uint8))
    elif mode in ("I", "F"):
        raise BadImage(f"{path}: its pixels are of type {mode} (32-bit); 8- or 16-bit is required")
    elif mode == "CMYK":
        upright = _from_cmyk(upright, metadata)
    elif upright.has_transparency_data:
        upright = upright.convert("RGBA")
        alpha = np.asarray(upright.getchannel("A"))
    return Photograph(np.asarray(upright.convert("RGB")), alpha, grey, file_format, metadata)


def _exif(image, file_format):
    """The EXIF block of a copy of the image, which is upright; None if there is nothing to say."""
    exif = image.getexif()
    if file_format == "TIFF":
        described = Image.Exif()
        described.update({tag: exif[tag] for tag in _DESCRIPTIVE_TAGS if tag in exif})
        described.update({ifd: exif.get_ifd(ifd) for ifd in _EXIF_FOLDERS if exif.get_ifd(ifd)})
        exif = described
    exif.pop(ExifTags.Base.Orientation, None)
    if exif or any(exif.get_ifd(ifd) for ifd in _EXIF_FOLDERS):
        return exif.tobytes()
    return None


def _from_cmyk(image, metadata):
    """CMYK to RGB; the profile of four inks does not fit the result and is replaced by sRGB."""
    profile = metadata.pop("icc_profile", None)
    if profile is None:
        return image.convert("RGB")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    try:
        image = ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)), srgb, outputMode="RGB")
    except ImageCms.PyCMSError:
        return image.convert("RGB")
    metadata["icc_profile"] = srgb.tobytes()
    return image


def write_photograph(path, photograph):
    """Writes an image file, whole or not at all, in the format and with the metadata of the photograph it came from.

    JPEG is written at quality 95 without chroma subsampling, WebP at quality 95, everything else without loss.

    Args:
        path: str or Path; its folder exists.
        photograph: `Photograph`.

    Raises:
        OSError: if the file cannot be written; what stood at `path` before is then still there.
    """
    image = Image.fromarray(photograph.pixels)
    if photograph.grey:
        image = image.convert("L")
    if photograph.alpha is not None:
        image.putalpha(Image.fromarray(photograph.alpha))
    options = dict(photograph.metadata)
    if photograph.format == "JPEG":
        options.update(quality=95, subsampling=0)
    elif photograph.format == "WEBP":
        options.update(quality=95)
    encoded = io.BytesIO()
    image.save(encoded, photograph.format, **options)
    write_bytes(path, encoded.getbuffer())


@contextmanager
def whole_file(path):
    """Lets a file appear whole or not at all: it is written under a temporary name beside `path`, then renamed.

    Args:
        path: str or Path; its folder exists.

    Yields:
        Path with the extension of `path`, to be written; on leaving without an error it takes the place of `path`.

    Raises:
        OSError: if the file cannot be written; what stood at `path` before is then still there.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        # mkstemp makes private files; a result has the rights that any new file here would have.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_bytes(path, content):
    """Writes bytes-like `content` to `path`, whole or not at all; see `whole_file`."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def read_rgb(path):
    """Reads the pixels of an image file; `read_photograph` without what a copy on disk would need.

    Returns:
        uint8 `(H, W, 3)`, RGB, upright.

    Raises:
        BadImage: as `read_photograph`.
    """
    return read_photograph(path).pixels


def from_uint8(pixels):
    """uint8 [0, 255] of any shape to float32 [-1, 1], as the networks take it."""
    return np.asarray(pixels, np.float32) / np.float32(127.5) - np.float32(1)


def to_uint8(values):
    """Float [-1, 1] of any shape to uint8 [0, 255]: clipped, then rounded to the nearest."""
    return np.rint((np.clip(np.asarray(values, np.float32), -1, 1) + 1) * np.float32(127.5)).astype(np.uint8)


def find_images(folder):
    """The image files of a folder, by extension in any letter case, hidden files apart.

    Args:
        folder: str or Path; its subfolders are not looked into.

    Returns:
        Sorted list of Path.

    Raises:
        NotADirectoryError: if `folder` is not a folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder}: no such folder")
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_EXTENSIONS and not path.name.startswith(".") and path.is_file()
    )


class Pair(NamedTuple):
    """A blurred photograph and its sharp counterpart.

    Attributes:
        name: str, the file name without extension that both share.
        sequence: str, the folder of a GoPro tree it belongs to; "" elsewhere.
        blurred: Path.
        sharp: Path.
    """

    name: str
    sequence: str
    blurred: Path
    sharp: Path


def find_pairs(data_dir, blur="blur"):
    """Pairs blurred and sharp files by name, never by position: a missing file must not shift the rest.

    Three layouts are read in place: `A/` (blurred) and `B/` (sharp); `blur/` and `sharp/`; the GoPro tree
    `<sequence>/{blur,blur_gamma,sharp}/`.

    Args:
        data_dir: str or Path, the folder that holds them.
        blur: "blur" or "blur_gamma", which blurred folder of a GoPro tree (or of `blur/` and `sharp/`).

    Returns:
        `(pairs, unmatched)`: list of `Pair`, sorted by sequence and name, and sorted list of the Paths that have no
        counterpart or share their name with another file of their folder.

    Raises:
        NotADirectoryError: if `data_dir` is not a folder, or none of the layouts.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise NotADirectoryError(f"{data_dir}: no such folder")
    if (data_dir / "A").is_dir() and (data_dir / "B").is_dir():
        return _match("", data_dir / "A", data_dir / "B")
    if (data_dir / blur).is_dir() and (data_dir / "sharp").is_dir():
        return _match("", data_dir / blur, data_dir / "sharp")
    sequences = sorted(
        folder for folder in data_dir.iterdir() if (folder / blur).is_dir() and (folder / "sharp").is_dir()
    )
    if not sequences:
        raise NotADirectoryError(
            f"{data_dir}: holds neither A/ and B/, nor {blur}/ and sharp/, nor folders with {blur}/ and sharp/ in them"
        )
    pairs, unmatched = [], []
    for folder in sequences:
        found, left_over = _match(folder.name, folder / blur, folder / "sharp")
        pairs += found
        unmatched += left_over
    return pairs, unmatched


def _match(sequence, blurred_dir, sharp_dir):
    blurred, sharp = _by_name(blurred_dir), _by_name(sharp_dir)
    pairs, unmatched = [], []
    for name in sorted(blurred.keys() | sharp.keys()):
        of_blurred, of_sharp = blurred.get(name, []), sharp.get(name, [])
        if len(of_blurred) == len(of_sharp) == 1:
            pairs.append(Pair(name, sequence, of_blurred[0], of_sharp[0]))
        else:
            unmatched += of_blurred + of_sharp
    return pairs, sorted(unmatched)


def _by_name(folder):
    files = {}
    for path in find_images(folder):
        files.setdefault(path.stem, []).append(path)
    return files


def check_pairs(pairs, unmatched=(), n_workers=4, show_progress=False):
    """Reads every file once and says what would spoil training.

    Args:
        pairs: list of `Pair`.
        unmatched: list of Path without a counterpart, as `find_pairs` returns it.
        n_workers: int, files that are decoded at a time.
        show_progress: bool, a progress bar on stderr.

    Returns:
        list of str, one line for each problem, naming its files: no counterpart, not readable, unequal sizes, or
        blurred and sharp the same picture.
    """
    problems = [f"{path}: no single counterpart of this name; it cannot be paired" for path in unmatched]
    with ThreadPoolExecutor(n_workers) as pool:
        found = pool.map(_problem, pairs)
        for problem in tqdm(found, total=len(pairs), desc="checking pairs", disable=not show_progress, leave=False):
            problems += problem
    return problems


def _problem(pair):
    pixels, problems = [], []
    for path in (pair.blurred, pair.sharp):
        try:
            pixels.append(read_rgb(path))
        except BadImage as error:
            problems.append(str(error))
    if problems:
        return problems
    blurred, sharp = pixels
    if blurred.shape != sharp.shape:
        height, width = sharp.shape[:2]
        found = f"{blurred.shape[1]}x{blurred.shape[0]}"
        return [f"{pair.blurred}: is {found}, but {pair.sharp} is {width}x{height}; equal sizes are required"]
    if np.array_equal(blurred, sharp):
        return [f"{pair.blurred}: the same picture as {pair.sharp}; a blurred one is required"]
    return []


def set_aside(pairs, seed, share=0.1):
    """Splits off a few pairs to validate with, by scene, so that no neighbouring frame is trained on.

    A scene is a sequence of a GoPro tree, or, elsewhere, the files whose names differ only in the digits behind the
    last underscore. Scenes of more than a quarter of all pairs are not given away; where there are no others, single
    pairs are set aside.

    Args:
        pairs: list of `Pair`.
        seed: int, decides which.
        share: float, about how much of the pairs to set aside; at least one pair is, of two or more.

    Returns:
        `(training, validation)`: two lists of `Pair` in the order of `pairs`.
    """
    scenes = {}
    for pair in pairs:
        scenes.setdefault(_scene(pair), []).append(pair)
    candidates = [scene for scene in scenes.values() if len(scene) <= len(pairs) / 4] or [[pair] for pair in pairs]
    wanted = min(max(1, round(share * len(pairs))), len(pairs) - 1)
    validation = set()
    for number in np.random.default_rng(seed).permutation(len(candidates)):
        if len(validation) >= wanted:
            break
        validation.update(candidates[number])
    return [pair for pair in pairs if pair not in validation], [pair for pair in pairs if pair in validation]


def _scene(pair):
    stem, underscore, number = pair.name.rpartition("_")
    return pair.sequence or (stem if underscore and number.isdigit() else pair.name)


class TrainingSet:
    """An endless stream of batches of blurred and sharp crops, every sample a function of seed, epoch and index.

    All pairs (and all photographs) are seen once in a new random order before any is seen again, also across epochs.
    Where there are both, two of three samples are photographs blurred on the fly, as for the best model of the paper.

    Images are reduced by `scale` on reading, bicubic with antialiasing, but never below the crop; smaller ones are
    enlarged until the crop fits. Photographs that are blurred on the fly are not reduced. A crop falls anywhere with
    equal chance and is mirrored in half of the samples, blurred and sharp alike.

    Args:
        pairs: list of `Pair`, may be empty if there are photographs.
        photographs: list of Path of sharp images to blur on the fly.
        blur: function that takes uint8 `(H, W, 3)` and a `numpy.random.Generator` and returns a blurred copy of the
            same shape and dtype; required with photographs.
        batch_size: int, samples in a batch.
        crop_size: int, height and width of a sample in pixels.
        scale: float above 0, factor to both sides of the images of `pairs`.
        resize_or_crop: "crop", or "resize" to take the whole image squeezed into the size of the crop.
        seed: int.
        steps_per_epoch: int, batches that make an epoch; None for each pair once (with the photographs it takes two
            thirds of the epoch), or, without pairs, each photograph once.
        cache: None, "memory" or a Path of a folder: where decoded, reduced images are kept as uint8.
        n_workers: int, threads that prepare batches ahead.

    Reference: https://arxiv.org/abs/1711.07064, section 5
    """

    def __init__(
        self,
        pairs,
        photographs=(),
        blur=None,
        batch_size=1,
        crop_size=256,
        scale=0.5,
        resize_or_crop="crop",
        seed=0,
        steps_per_epoch=None,
        cache=None,
        n_workers=4,
    ):
        self.pairs = list(pairs)
        self.photographs = list(photographs)
        self.blur = blur
        self.batch_size = batch_size
        self.crop_size = crop_size
        self.scale = scale
        self.resize_or_crop = resize_or_crop
        self.seed = seed
        self.cache = cache
        self.n_workers = n_workers
        self._in_memory = {}
        n_samples = len(self.pairs) * (3 if self.photographs else 1) or len(self.photographs)
        self.steps_per_epoch = steps_per_epoch or max(1, n_samples // batch_size)

    def batches(self, first, last):
        """Yields the batches `first` to `last - 1` of the run, in order, a few prepared ahead by threads.

        Yields:
            `(blurred, sharp)`: float32 `(batch_size, crop_size, crop_size, 3)` in [-1, 1].

        Raises:
            BadImage: if a file has become unreadable.
        """
        with ThreadPoolExecutor(self.n_workers, thread_name_prefix="batches") as pool:
            ahead = deque()
            try:
                for step in range(first, last):
                    ahead.append(pool.submit(self.batch, step))
                    if len(ahead) > 2 * self.n_workers:
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def batch(self, step):
        """Batch number `step` of the run, counted from 0 over all epochs; see `batches`."""
        epoch, step = divmod(step, self.steps_per_epoch)
        samples = [self.sample(epoch, step * self.batch_size + place) for place in range(self.batch_size)]
        blurred, sharp = zip(*samples, strict=True)
        return from_uint8(np.stack(blurred)), from_uint8(np.stack(sharp))

    def sample(self, epoch, index):
        """One sample, always the same for the same seed, epoch and index.

        Returns:
            `(blurred, sharp)`: uint8 `(crop_size, crop_size, 3)`.
        """
        number = epoch * self.steps_per_epoch * self.batch_size + index
        rng = np.random.default_rng((self.seed, epoch, index))
        if not self.photographs:
            blurred, sharp = self._of_pair(self._drawn(self.pairs, number, "pairs"), rng)
        elif not self.pairs:
            blurred, sharp = self._of_photograph(self._drawn(self.photographs, number, "photographs"), rng)
        elif number % 3 == 0:
            blurred, sharp = self._of_pair(self._drawn(self.pairs, number // 3, "pairs"), rng)
        else:
            number -= number // 3 + 1
            blurred, sharp = self._of_photograph(self._drawn(self.photographs, number, "photographs"), rng)
        if rng.random() < 0.5:
            blurred, sharp = blurred[:, ::-1], sharp[:, ::-1]
        return blurred, sharp

    def whole(self, pair):
        """A pair as the networks are to see it, without a crop.

        Returns:
            `(blurred, sharp)`: uint8 `(H, W, 3)`, reduced by `scale`, or squeezed for "resize".
        """
        return self._pixels(pair.blurred, self.scale), self._pixels(pair.sharp, self.scale)

    def blurred_whole(self, path, number):
        """A photograph and a blurred copy, always the same for the same seed and number, without a crop.

        Returns:
            `(blurred, sharp)`: uint8 `(H, W, 3)`.
        """
        sharp = self._pixels(path, 1)
        return self.blur(sharp, np.random.default_rng((self.seed, 2, 0, number + 1))), sharp

    def _drawn(self, items, number, kind):
        """Item `number` of an endless list in which every stretch of `len(items)` holds each item once."""
        stretch, place = divmod(number, len(items))
        return items[_shuffled(self.seed, kind, stretch, len(items))[place]]

    def _of_pair(self, pair, rng):
        blurred, sharp = self.whole(pair)
        if blurred.shape != sharp.shape:
            raise BadImage(f"{pair.blurred}: not of the size of {pair.sharp}")
        window = self._window(sharp.shape, rng)
        return blurred[window], sharp[window]

    def _of_photograph(self, path, rng):
        sharp = self._pixels(path, 1)
        rows, columns = self._window(sharp.shape, rng)
        # What lies beyond the crop is blurred into it, so a margin is blurred with it where the photograph has one.
        margin = self.crop_size // 8
        top, left = max(0, rows.start - margin), max(0, columns.start - margin)
        around = sharp[top : rows.stop + margin, left : columns.stop + margin]
        crop = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        return self.blur(around, rng)[crop], sharp[rows, columns]

    def _window(self, shape, rng):
        top, left = (int(rng.integers(0, side - self.crop_size + 1)) for side in shape[:2])
        return slice(top, top + self.crop_size), slice(left, left + self.crop_size)

    def _pixels(self, path, scale):
        """The pixels of a file in the size they are cropped from, from the cache where there is one."""
        if self.cache is None:
            return self._decoded(path, scale)
        if self.cache == "memory":
            key = path, scale
            if key not in self._in_memory:
                self._in_memory[key] = self._decoded(path, scale)
            return self._in_memory[key]
        status = path.stat()
        size = self.crop_size, scale, self.resize_or_crop
        key = repr((str(path.resolve()), status.st_size, status.st_mtime_ns, size))
        stored = Path(self.cache) / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"
        if not stored.exists():
            pixels = self._decoded(path, scale)
            with whole_file(stored) as temporary:
                np.save(temporary, pixels)
        return np.load(stored, mmap_mode="r")

    def _decoded(self, path, scale):
        pixels = read_rgb(path)
        height, width = pixels.shape[:2]
        if self.resize_or_crop == "resize":
            size = self.crop_size, self.crop_size
        else:
            factor = max(scale, self.crop_size / min(height, width))
            size = round(width * factor), round(height * factor)
        if size == (width, height):
            return pixels
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


@functools.lru_cache(maxsize=8)
def _shuffled(seed, kind, stretch, n):
    # A fourth number above 0 keeps this generator apart from those of the samples, which have three.
    return np.random.default_rng((seed, ("pairs", "photographs").index(kind), stretch, n)).permutation(n)


def organize_gopro(dir_in, dir_out, blur="blur", show_progress=False):
    """Lays out the GoPro tree `{train,test}/<sequence>/{blur,blur_gamma,sharp}/` as `{train,test}/{A,B}/`.

    A file becomes `<sequence>_<frame>.png`, in `A/` if blurred and in `B/` if sharp. It is a hard link where the file
    system allows it (no space is taken), else a copy. Files that are there already are passed over, so an interrupted
    call is simply repeated.

    Args:
        dir_in: str or Path, the unpacked `GOPRO_Large`.
        dir_out: str or Path, made where it is missing.
        blur: "blur" or "blur_gamma", which blurred frames to take.
        show_progress: bool, a progress bar on stderr.

    Returns:
        dict of the number of pairs in "train" and "test", those that `dir_in` has.

    Raises:
        NotADirectoryError: if `dir_in` is not such a tree.
        FileNotFoundError: if a frame has no counterpart; nothing is written then.
        FileExistsError: if another file stands where one is to be written; it is left alone.
    """
    dir_in, dir_out = Path(dir_in), Path(dir_out)
    parts = [part for part in ("train", "test") if (dir_in / part).is_dir()]
    if not parts:
        raise NotADirectoryError(f"{dir_in}: holds neither train/ nor test/; the unpacked GOPRO_Large is required")
    found = {}
    for part in parts:
        found[part], unmatched = find_pairs(dir_in / part, blur)
        if unmatched:
            raise FileNotFoundError(
                f"{unmatched[0]}: has no counterpart, as {len(unmatched)} files of {dir_in / part}; "
                "is it completely unpacked?"
            )
    links = []
    for part, pairs in found.items():
        for pair in pairs:
            prefix = f"{pair.sequence}_" if pair.sequence else ""
            for letter, source in (("A", pair.blurred), ("B", pair.sharp)):
                links.append((source, dir_out / part / letter / f"{prefix}{source.name}"))
    for folder in {target.parent for _, target in links}:
        folder.mkdir(parents=True, exist_ok=True)
    for source, target in tqdm(links, desc="organizing", unit=" files", disable=not show_progress, leave=False):
        _link_or_copy(source, target)
    return {part: len(pairs) for part, pairs in found.items()}


def _link_or_copy(source, target):
    if target.exists():
        there, wanted = target.stat(), source.stat()
        if (there.st_size, there.st_mtime_ns) != (wanted.st_size, wanted.st_mtime_ns):
            raise FileExistsError(f"{target}: another file than {source} stands there; move it away first")
        return
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        with whole_file(target) as temporary:
            shutil.copy2(source, temporary)
