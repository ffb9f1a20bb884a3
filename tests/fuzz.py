"""Damages files at random and loads each: whatever a file holds, it loads or is refused in one line.

    python tests/fuzz.py --kind weights --n 2000 --seed 0

Loads run in a process of their own, so that a hang or a crash is an escape like any other. Every damage depends only
on the file, the seed and a number, and an escape lists that number: `--first NUMBER --n 1 --keep FOLDER` repeats it.
"""

import contextlib
import json
import multiprocessing
import os
import random
import re
import shutil
import struct
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import NamedTuple

import click
from tqdm import tqdm

GOLDEN = Path(__file__).parent / "golden"
SECONDS, MEGABYTES = 10, 1024


class Outcome(NamedTuple):
    """The result of a load: the reason of a refusal, or of an escape, or neither; seconds; megabytes at its peak."""

    refused: str | None
    escaped: str | None
    seconds: float
    megabytes: float


# ---- the kinds of files: each function writes whole files into a folder and returns a pair: the function that loads
# such a file, with the exceptions that it declares, and the paths of those to damage


def weights(folder):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from deblur_gan import networks
    from deblur_gan import weights as module

    keras.utils.set_random_seed(0)
    paths = [folder / name for name in ("keras213_generator.h5", "keras213_discriminator.h5")]
    for path in paths:
        shutil.copy(GOLDEN / path.name, path)
    meudec, paper = (networks.generator_model(name, 2, 1) for name in ("meudec", "paper"))
    module.save_generator(paper, folder / "generator.h5", training={"epoch": 3})
    module.save_critic(networks.critic_model("paper", 2), folder / "critic.h5")
    paper.save(folder / "whole.keras")
    meudec.save(folder / "whole.h5")
    meudec.save_weights(folder / "generator.weights.h5")
    paths += [folder / f"{name}.h5" for name in ("generator", "critic", "whole", "generator.weights")]

    return _load_weights, (module.BadWeights,), [*paths, _packed(folder), folder / "whole.keras"]


def _load_weights(path):
    from deblur_gan import weights as module
    from deblur_gan.weights import load

    # Damage cannot make another network of a file, all of whose shapes would have to change together. To build each
    # network once saves nine tenths of the time.
    if load.build is module.identify.build:
        load.build = _once(load.build)
    critic = "critic" in path.name or "discriminator" in path.name
    (module.load_critic if critic else module.load_generator)(path)


def pytorch(folder):
    """State_dicts of each format, as torch and as this package wrote them."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from deblur_gan import weights as module

    paths = [Path(shutil.copy(path, folder)) for path in sorted(GOLDEN.glob("torch_*.pth"))]
    module.save_pytorch(module.load_generator(paths[1]), folder / "saved_generator.pth")
    return _load_weights, (module.BadWeights,), [*paths, folder / "saved_generator.pth"]


def _once(build):
    """Returns `build` with a memory of its last call: networks of the same arguments are built once."""
    built = {}

    def built_once(*args, **kwargs):
        key = str((args, kwargs))
        if key not in built:
            built.clear()
            built[key] = build(*args, **kwargs)
        return built[key]

    return built_once


def _packed(folder):
    """A generator compressed as h5py does on request, which Keras never does."""
    import h5py

    path = folder / "packed.h5"
    with h5py.File(GOLDEN / "keras213_generator.h5") as source, h5py.File(path, "w") as target:
        target.attrs.update(source.attrs)

        def pack(name, item):
            if isinstance(item, h5py.Dataset):
                target.create_dataset(name, data=item[()], chunks=True, compression="gzip", shuffle=True)
            target.require_group(name).attrs.update(item.attrs) if isinstance(item, h5py.Group) else None

        source.visititems(pack)
    return path


def vgg(folder):
    """Weights of a perceptual network; only what is read of them, since a network of their size is slow to fill."""
    import h5py
    import numpy as np

    from deblur_gan.weights import hdf5

    with h5py.File(folder / "vgg.h5", "w") as file:
        names = [f"block{number}_conv1" for number in range(1, 30)]
        file.attrs["layer_names"] = [name.encode() for name in names]
        for name in names:
            group = file.create_group(name)
            group.attrs["weight_names"] = [f"{name}_W_1:0".encode()]
            group[f"{name}_W_1:0"] = np.ones((3, 3, 2, 4), np.float32)

    def load(path):
        with hdf5.opened(path) as root:
            for layer in hdf5.layers(root) or []:
                for array in layer.arrays:
                    array.read()

    return load, (hdf5.BadWeights,), [folder / "vgg.h5"]


def photographs(folder):
    """Photographs with all the metadata that a copy keeps; each is read, and written again."""
    import numpy as np
    import tifffile
    from PIL import Image, ImageCms, features
    from PIL.PngImagePlugin import PngInfo

    from deblur_gan.images.photographs import BadImage, read_photograph, write_photograph

    rng = np.random.default_rng(0)
    grey = np.add.outer(np.arange(40), np.arange(56)).astype(np.uint8) * 2 + rng.integers(0, 9, (40, 56), np.uint8)
    pictures = {"L": Image.fromarray(grey), "I;16": Image.fromarray(grey.astype(np.uint16) * 257)}
    pictures |= {mode: pictures["L"].convert("RGB").convert(mode) for mode in ("RGB", "RGBA", "CMYK", "P", "LAB", "1")}
    exif, texts = Image.Exif(), PngInfo()
    exif[0x0112], exif[0x010E] = 6, "a photograph"
    exif.get_ifd(0x8769)[0x829A] = 0.5
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6" label="mine"/></x:xmpmeta>'
    texts.add_text("Author", "someone", zip=True)
    texts.add_itxt("XML:com.adobe.xmp", xmp.decode())
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x0a\x1c\x02\x78\0\5Spain"
    rich = {"exif": exif, "xmp": xmp, "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    sources = {
        ".jpg": (("RGB", "L", "CMYK"), {"comment": "Spain", "extra": b"\xff\xed\0\x24" + iptc}),
        ".png": (("RGB", "RGBA", "L", "I;16", "P", "1"), {"pnginfo": texts}),
        ".webp": (("RGB", "RGBA"), {}),
        "_lossless.webp": (("RGB", "RGBA"), {"lossless": True}),
        ".tif": (("RGB", "RGBA", "L", "I;16", "CMYK", "LAB", "1"), {}),
        ".bmp": (("RGB", "RGBA", "L", "P"), {}),
    }
    sources |= {f"_{name}.tif": (("RGB",), {"compression": name}) for name in ("tiff_lzw", "packbits", "jpeg")}
    sources |= {".avif": (("RGB", "RGBA", "L"), {"speed": 10})} if features.check("avif") else {}
    paths = []
    for ending, (modes, options) in sources.items():
        for mode in modes:
            paths.append(folder / f"{mode.replace(';', '')}{ending}")
            pictures[mode].save(paths[-1], **rich, **options)
            paths.append(folder / f"plain_{mode.replace(';', '')}{ending}")
            pictures[mode].save(paths[-1], **{key: options[key] for key in options if key != "pnginfo"})

    pixels = np.asarray(pictures["RGB"])
    wide, planes = pixels.astype(np.uint16) * 257, {"planarconfig": "separate", "photometric": "rgb"}
    for name, data, options in (
        ("tiles", pixels, {"tile": (16, 16), "photometric": "rgb"}),
        ("planes", np.moveaxis(pixels, 2, 0), planes),
        ("planes_16", np.moveaxis(wide, 2, 0), planes | {"compression": "zlib", "predictor": True, "rowsperstrip": 7}),
        ("alpha_16", wide[..., :2], {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": [2]}),
        ("big", wide, {"photometric": "rgb", "bigtiff": True}),
    ):
        paths.append(folder / f"{name}.tif")
        tifffile.imwrite(paths[-1], data, **options)
    for path in sorted((Path(__file__).parent / "cases").glob("*.*")):
        with contextlib.suppress(BadImage):  # that is refused, or needs what is not installed
            read_photograph(path)
            paths.append(folder / path.name)
            shutil.copy(path, paths[-1])
    # Half of the PNG files are damaged before their check sums are made, which would give nearly all damage away.
    for path in [path for path in paths if path.suffix == ".png"]:
        paths.append(path.with_name(f"summed_{path.name}"))
        shutil.copy(path, paths[-1])

    def load(path):
        if path.name.startswith("summed_"):
            path.write_bytes(_with_check_sums(path.read_bytes()))
        write_photograph(path.with_name(f"copy{path.suffix}"), read_photograph(path))

    return load, (BadImage,), paths


def _with_check_sums(png):
    """A PNG file in which the check sum of each chunk is right, as far as there are chunks."""
    png, at = bytearray(png), 8
    while at + 12 <= len(png):
        end = at + 8 + int.from_bytes(png[at : at + 4], "big")
        png[end : end + 4] = zlib.crc32(png[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(png)


def states(folder):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import numpy as np
    from PIL import Image, ImageFilter

    from deblur_gan.training import build, run
    from deblur_gan.training.checkpoint import BadRun
    from deblur_gan.training.options import BadOption, Options

    os.chdir(folder)  # so that options.json holds no name of a temporary folder, and damages can be repeated
    data = Path("data")
    for side in "AB":
        (data / side).mkdir(parents=True)
    for number in range(3):
        sharp = Image.fromarray(np.random.default_rng(number).integers(0, 256, (48, 48, 3), np.uint8))
        sharp.save(data / "B" / f"{number}.png")
        sharp.filter(ImageFilter.BoxBlur(1)).save(data / "A" / f"{number}.png")
    shrunk = {"crop_size": 16, "ngf": 2, "n_blocks": 1, "ndf": 2, "critic_updates": 1, "perceptual_weight": 0.0}
    shrunk |= {"pixel_weight": 1.0, "n_epochs": 1, "steps_per_epoch": 1, "n_workers": 1, "n_val_images": 0}
    with contextlib.redirect_stdout(sys.stderr):
        run_dir = run.train(Options(data_dir=(str(data),), log_dir="runs", **shrunk)).resolve()
    record = json.loads((run_dir / "options.json").read_bytes()) | {"command": "train"}
    (run_dir / "options.json").write_text(json.dumps(record, indent=2))
    run._fit = lambda options, run_folder, *rest: run_folder.path  # all of resuming but the steps
    run.build_gan = _once(run.build_gan)  # which takes nine tenths of the time
    build.PerceptualLoss = lambda *args: build._no_loss  # whose weights may not be there

    def load(path):
        content = path.read_bytes()
        target = run_dir / path.name.removeprefix("summed_")
        whole = target.read_bytes()
        target.write_bytes(_with_check_sums_of_zip(content) if path.name.startswith("summed_") else content)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                run.resume(run_dir, n_epochs=2)
        finally:
            target.write_bytes(whole)

    # The check sums of a state give nearly all damage away; in the second copy they are made after it.
    sources = [folder / name for name in ("state.npz", "summed_state.npz", "options.json")]
    for source in sources:
        shutil.copy(run_dir / source.name.removeprefix("summed_"), source)
    return load, (BadRun, BadOption), sources


def _with_check_sums_of_zip(archive):
    """A zip archive in which the check sum of each stored entry is right, as far as there are entries."""
    archive = bytearray(archive)
    for entry in re.finditer(b"PK\1\2", bytes(archive)):
        with contextlib.suppress(struct.error):
            size, offset = (struct.unpack_from("<I", archive, entry.start() + at)[0] for at in (20, 42))
            start = offset + 30 + sum(struct.unpack_from("<HH", archive, offset + 26))
            check_sum = struct.pack("<I", zlib.crc32(archive[start : start + size]))
            for at in (entry.start() + 16, offset + 14):
                archive[at : at + 4] = check_sum
    return bytes(archive)


def videos(folder):
    """Clips in each container; each is restored whole and in part, and read for training pairs."""
    from fractions import Fraction

    import av
    import numpy as np
    from tqdm import tqdm

    from deblur_gan.blur.recordings import read_frames
    from deblur_gan.images.photographs import BadImage
    from deblur_gan.video.restore import restore_video

    def write(name, codec, sound=None, layout="yuv420p", n=6):
        with av.open(str(folder / name), "w") as container:
            container.metadata["title"] = "a walk"
            quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
            video = container.add_stream(codec, rate=25, options=quiet)
            video.width, video.height, video.pix_fmt = 64, 48, layout
            audio = container.add_stream(sound, rate=48000) if sound else None
            if name.endswith("mkv"):
                chapter = {"id": 1, "start": 0, "end": 100, "time_base": Fraction(1, 1000), "metadata": {"title": "a"}}
                container.set_chapters([chapter])
            for number in range(n):
                pixels = np.add.outer(np.arange(48), np.arange(64) + number).astype(np.uint8)
                frame = av.VideoFrame.from_ndarray(np.dstack([pixels, 255 - pixels, pixels]), format="rgb24")
                container.mux(video.encode(frame.reformat(format=layout)))
            container.mux(video.encode(None))
            if audio:
                silence = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 10000), np.int16), format="s16", layout="stereo")
                silence.sample_rate = 48000
                context = audio.codec_context
                parts = av.AudioResampler(context.format, context.layout, 48000, context.frame_size or 1024)
                for part in [*parts.resample(silence), *parts.resample(None), None]:
                    container.mux(audio.encode(part))
        return folder / name

    paths = [
        write("h264.mp4", "libx264", "aac"),
        write("hevc.mov", "libx265"),
        write("prores.mov", "prores_ks", layout="yuv422p10le"),
        write("h264.mkv", "libx264", "aac"),
        write("ffv1.mkv", "ffv1"),
        write("vp9.webm", "libvpx-vp9"),
        write("mpeg4.avi", "mpeg4", "pcm_s16le"),
        write("mjpeg.avi", "mjpeg", layout="yuvj420p"),
        write("mpeg2.mpg", "mpeg2video"),
        write("h264.ts", "libx264", "mp2"),
    ]

    def load(path):
        copy = path.with_name(f"copy{path.suffix}")
        for frames in (
            lambda: restore_video(np.copy, path, copy, progress=lambda **options: tqdm(disable=True, **options)),
            lambda: restore_video(np.copy, path, copy, start=0.08, duration=0.1),
            lambda: list(read_frames(path, lambda fault: None)),
        ):
            with contextlib.suppress(BadImage):
                frames()
        restore_video(np.copy, path, copy)

    return load, (BadImage, OSError), paths


KINDS = {
    "weights": weights,
    "pytorch": pytorch,
    "vgg": vgg,
    "photographs": photographs,
    "states": states,
    "videos": videos,
}


# ---- damages


def damaged(content, seed):
    """Damages bytes in one to three ways and places.

    Args:
        content: bytes.
        seed: int or str; the damage depends on it and the content.

    Returns:
        bytes, of any length.
    """
    rng = random.Random(seed)
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 3])):
        if not content:
            break
        size = len(content)
        # Structure is where files begin, and what the rest is aligned to.
        at = rng.randrange(rng.choice([min(size, 256), min(size, 4096), size]))
        length = rng.choice([1, 2, 4, 8, 16, 64, 512, size // 4 + 1])
        other = rng.randrange(size)
        match rng.choice([0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 7]):
            case 0:
                for place in [at, *(rng.randrange(size) for _ in range(rng.randint(0, 7)))]:
                    content[place] ^= 1 << rng.randrange(8)
            case 1:  # a number that is zero, huge, negative, or an address in the file
                number = rng.choice([0, 1, 2**16 - 1, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1, size, other])
                content[at // 8 * 8 : at // 8 * 8 + 8] = struct.pack("<Q", number)
            case 2:  # text: another digit or letter
                digits = [match.start() for match in re.finditer(rb"[0-9]", content[at : at + 4096])]
                if digits:
                    content[at + rng.choice(digits)] = ord(rng.choice('0123456789-.eN"[{'))
            case 3:
                content[at : at + length] = rng.randbytes(min(length, size - at))
            case 4:
                content[at : at + length] = bytes([rng.choice([0, 255])]) * min(length, size - at)
            case 5:  # a cut
                del content[rng.choice([at, other]) :]
            case 6:  # a splice: something is lost, or stands twice
                content[at : at + rng.choice([0, length])] = content[other : other + rng.choice([0, length])]
            case 7:  # a chunk over another
                content[at : at + length] = content[other : other + length]
    return bytes(content)


# ---- loading, and what it came to


def outcome(load, declared, path):
    """Loads a file; returns `Outcome`."""
    peak, start, used = _peak(), time.monotonic(), time.process_time()
    refused = escaped = None
    try:
        load(path)
    except declared as error:
        refused = str(error)
        if len(refused.splitlines()) != 1 or not refused.isprintable():
            escaped = f"a message that is not one line: {refused!r}"
        elif len(refused) > 300:
            escaped = f"a message of {len(refused)} characters: {refused[:100]}"
    except Exception as error:
        escaped = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    # Processor time is the smaller one if the machine has other work, too.
    seconds = min(time.monotonic() - start, time.process_time() - used)
    grown = max(0.0, _peak(reset=False) - peak)
    if seconds > SECONDS:
        escaped = f"{seconds:.0f} s"
    elif grown > MEGABYTES:
        escaped = f"+{grown:.0f} MB"
    return Outcome(refused, escaped, seconds, grown)


def _peak(reset=True):
    """The largest memory of this process in megabytes, on Linux since the last reset, elsewhere since it began."""
    with contextlib.suppress(OSError):
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _work(kind, folder, connection):
    """The process that loads: receives paths, sends outcomes."""
    folder = Path(folder)
    load, declared, paths = KINDS[kind](folder)
    connection.send([str(path) for path in paths])
    with contextlib.suppress(ImportError, ValueError):
        import resource

        mapped = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
        # So that what this looks for does not take the machine down.
        resource.setrlimit(resource.RLIMIT_AS, (mapped + 4 * MEGABYTES * 2**20,) * 2)
    with contextlib.suppress(EOFError):
        while True:
            connection.send(outcome(load, declared, Path(connection.recv())))


class Loader:
    """A process that loads files of a kind; one that hangs or crashes is replaced.

    Attributes:
        paths: list of Path, the whole files of the kind.
    """

    def __init__(self, kind, folder):
        self._kind, self._folder = kind, folder
        self._start()

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        folder = tempfile.mkdtemp(dir=self._folder)
        self._process = context.Process(target=_work, args=(self._kind, folder, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.paths = [Path(path) for path in self._connection.recv()]

    def __call__(self, path):
        """Loads a file; returns `Outcome`."""
        start = time.monotonic()
        try:
            self._connection.send(str(path))
            if self._connection.poll(3 * SECONDS):
                return self._connection.recv()
            escaped = f"hangs for more than {3 * SECONDS} s"
        except (EOFError, ConnectionError):
            self._process.join()
            escaped = f"ends the process with code {self._process.exitcode}"
        self.close()
        self._start()
        return Outcome(None, escaped, time.monotonic() - start, 0.0)

    def close(self):
        self._process.kill()
        self._process.join()


def fuzz(kind, n, seed, first=0, keep=None, load=None):
    """Damages each file of a kind `n` times and loads what comes of it.

    Args:
        kind: str, of `KINDS`.
        n: int, damages of each file.
        seed: int.
        first: int, number of the first damage.
        keep: Path of a folder for the files that escaped, or None.

    Yields:
        (name of the whole file, number of the damage, `Outcome`).
    """
    with tempfile.TemporaryDirectory() as folder:
        loader = Loader(kind, folder)
        try:
            for source in loader.paths:
                content = source.read_bytes()
                path = Path(folder) / source.name
                for number in range(first, first + n):
                    path.write_bytes(damaged(content, f"{source.name} {seed} {number}"))
                    found = loader(path)
                    if found.escaped and keep:
                        shutil.copy(path, keep / f"{seed}_{number}_{source.name}")
                    yield source.name, number, found
        finally:
            loader.close()


@click.command(context_settings={"show_default": True}, help=__doc__.split("\n\n")[0])
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What is damaged.")
@click.option("--n", type=click.IntRange(min=1), default=2000, help="Damages of each file.")
@click.option("--seed", type=int, default=0, help="Another seed makes other damages.")
@click.option("--first", type=click.IntRange(min=0), default=0, help="Number of the first damage.")
@click.option(
    "--keep",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder in which files that escape are kept; without it they are only named.",
)
def main(kind, n, seed, first, keep):
    rows, escapes = {}, 0
    for name, number, found in tqdm(fuzz(kind, n, seed, first, keep), unit=" files", mininterval=5):
        row = rows.setdefault(name, {"damaged": 0, "refused": 0, "loaded": 0, "escaped": 0, "s": 0.0, "MB": 0.0})
        what = "escaped" if found.escaped else "loaded" if found.refused is None else "refused"
        row["damaged"] += 1
        row[what] += 1
        row["s"], row["MB"] = max(row["s"], round(found.seconds, 2)), max(row["MB"], round(found.megabytes))
        if found.escaped:
            escapes += 1
            tqdm.write(f"{name}, --seed {seed}, number {number}: {found.escaped}", file=sys.stdout)
    for name, row in rows.items():
        print(json.dumps({"file": name, **row}))
    print(f"{escapes} escaped")
    sys.exit(bool(escapes))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))
    main()
