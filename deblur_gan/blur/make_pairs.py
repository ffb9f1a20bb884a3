"""Makes folders of blurred and sharp pairs from sharp photographs and from recordings."""

import functools
import itertools
import os
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from deblur_gan.blur.camera import random_blur
from deblur_gan.blur.exposure import average_frames
from deblur_gan.blur.optical_flow import one_opencv_thread, optical_flow, random_flow_blur, speed, unreliable_share
from deblur_gan.blur.ranges import KINDS, draw, require
from deblur_gan.blur.recordings import find_scenes, is_cut, is_still, read_frames, reduce
from deblur_gan.files import whole_file
from deblur_gan.images.photographs import BadImage, Photograph, find_images, read_photograph, write_photograph
from deblur_gan.images.sharpness import sharpness


def blur_folder(
    input_dir,
    output_dir,
    n_per_image=1,
    seed=0,
    n_workers=None,
    save_kernels=False,
    kind="handheld",
    crop=None,
    scale=1.0,
    mask_dir=None,
    **ranges,
):
    """Makes a folder of pairs, as training and testing read it, from a folder of sharp photographs.

    `output_dir/A/<name>.png` is blurred, `output_dir/B/<name>.png` sharp, both 8-bit RGB (or grey if the photograph is
    grey) without transparency. The name is that of the photograph, followed by a number if `n_per_image` is more than
    1. The blur of a pair depends on `seed`, the file name and the number only. Files of the same name are replaced.

    Args:
        input_dir: str or Path, a folder of photographs in any format that `read_photograph` reads.
        output_dir: str or Path; made if missing.
        n_per_image: int, at least 1, pairs from each photograph.
        seed: int, at least 0.
        n_workers: int, threads; by default one for each processor core.
        save_kernels: bool, also write `output_dir/kernels/<name>.png`: the kernel of the trajectory, 16-bit grey, its
            largest value at 65535. Divided by its sum, it is the kernel.
        kind: name in `ranges.KINDS`, the ranges of `random_blur`.
        crop: int, px, height and width of the part to keep, anywhere in the photograph; None keeps all of it.
        scale: float in (0, 1], factor to both sides of the photographs and masks, applied first.
        mask_dir: str or Path, a folder of pictures with the names and sizes of the photographs: white for an object
            that moves on its own, black elsewhere. A photograph without a mask gets a random outline.
        **ranges: of `random_blur`, in place of those of `kind`.

    Returns:
        `(n_pairs, failures)`: int, and a list of `BadImage`, one for each file that could not be used.

    Raises:
        ValueError: if `input_dir` contains no photographs, or two of one name, or would be written into; or if an
            argument is out of its range. Nothing is written then.
        OSError: if a folder is missing or a file cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (64, 48)).save(Path(folder, "night.png"))
    ...     blur_folder(folder, Path(folder, "pairs"), n_per_image=2)
    (2, [])
    """
    input_dir, output_dir = Path(input_dir), Path(output_dir)
    require(kind in KINDS, "kind", repr(kind), f"one of {', '.join(KINDS)}")
    ranges = {**KINDS[kind], **ranges}
    _require_ranges(random_blur, np.zeros((1, 1, 3), np.uint8), ranges=ranges)
    _require_counts(n_per_image=n_per_image, crop=crop, seed=seed, scale=scale)
    paths, masks = _find_by_stem(input_dir), _find_by_stem(mask_dir) if mask_dir else {}
    if not paths:
        raise ValueError(f"{input_dir}: contains no photographs; name a folder of photographs")
    _require_elsewhere(output_dir, ("A", "B", "kernels"), [input_dir])
    for name in ("A", "B", "kernels") if save_kernels else ("A", "B"):
        (output_dir / name).mkdir(parents=True, exist_ok=True)

    def write_pairs(path):
        try:
            sharp = drop_grey_copies(read_photograph(path))
            mask = _read_mask(masks.get(path.stem), path, sharp, scale)
            sharp = reduce(sharp, scale)
            _require_size(path, sharp, crop or 0)
        except BadImage as error:
            return error
        for i in range(n_per_image):
            name = f"{path.stem}_{_number(i, n_per_image)}" if n_per_image > 1 else path.stem
            rng = _generator(seed, i, name=path.name)
            window = random_window(rng, sharp, crop)
            blurred, kernel = random_blur(sharp, rng, mask=mask, window=window, **ranges)
            write_pair(output_dir, name, blurred, sharp[window])
            if save_kernels:
                with whole_file(output_dir / "kernels" / f"{name}.png") as temporary:
                    Image.fromarray(np.rint(65535 * kernel / kernel.max()).astype(np.uint16)).save(temporary)
        return None

    jobs = ((path,) for path in paths.values())
    results = tqdm(run_ahead(write_pairs, jobs, n_workers), desc="Blurring", unit="photograph", total=len(paths))
    failures = [failure for failure in results if failure]
    n_pairs = (len(paths) - len(failures)) * n_per_image
    failures += [BadImage(f"{mask}: no photograph has its name") for stem, mask in masks.items() if stem not in paths]
    return n_pairs, failures


def blur_recordings(
    sources,
    output_dir,
    frames=None,
    n_per_frame=1,
    every=1,
    crop=None,
    scale=1.0,
    min_sharpness=0.6,
    seed=0,
    n_workers=None,
    **ranges,
):
    """Makes a folder of pairs from recordings: along their optical flow, or as averages of their frames.

    Without `frames`, each frame but the last is blurred along its optical flow to the next frame, by a random length:
    for recordings of 24 to 60 frames a second. With `frames`, consecutive frames are averaged and their middle frame is
    the sharp one, as in GoPro and REDS: for recordings of 120 frames a second or more.

    `output_dir/A/<scene>_<frame>.png` is blurred, `B/<scene>_<frame>.png` sharp and unchanged. If `n_per_frame` is more
    than 1, the number of the pair follows that of the frame. `split.set_aside` keeps a scene together. The blur of a
    pair depends on the frames, `seed`, the scene's name and the numbers only. Files of the same name are replaced.

    Frames are left out at a scene cut, if they are blurred already, if nothing moves, and if forward and backward flow
    disagree in three of ten pixels. While flow is computed, OpenCV has one thread.

    Args:
        sources: list of str or Path: video files, folders of frames, folders of such files or folders.
        output_dir: str or Path; made if missing.
        frames: None, or `(low, high)`: the number of frames to average, an odd number drawn for each pair.
        n_per_frame: int, at least 1, pairs from each frame, each with another blur and another crop.
        every: int, at least 1: use one of that many frames, or groups of frames.
        crop: int, px, height and width of the part to keep, anywhere in the frame; None keeps all of it.
        scale: float in (0, 1], factor to both sides of the frames, applied first.
        min_sharpness: float, lowest `images.sharpness.sharpness` of a frame, and of the part to keep if one of four
            draws reaches it.
        seed: int, at least 0.
        n_workers: int, threads; by default one for each processor core.
        **ranges: of `optical_flow.random_flow_blur`, or, with `frames`, of `exposure.average_frames`.

    Returns:
        `(n_pairs, left_out, failures)`: int; dict from a reason to the number of frames, or groups of frames, left out
        for it; and a list of `BadImage`, one for each fault and each recording that gave no pair.

    Raises:
        ValueError: if a source contains no recording, if two have the same name, or an argument is out of its range.
            Nothing is written then.
        OSError: if a source is missing or a file cannot be written. ImportError: without OpenCV, if `frames` is None.
    """
    # Everything is checked before anything is written.
    output_dir = Path(output_dir)
    _require_counts(n_per_frame=n_per_frame, every=every, crop=crop, seed=seed, scale=scale)
    dark = np.zeros((32, 32, 3), np.uint8)
    if frames is None:
        _require_ranges(random_flow_blur, dark, np.zeros((32, 32, 2), np.float32), ranges=ranges)
    else:
        low, high = frames
        odd = 3 <= low <= high < 1000 and low + (low + 1) % 2 <= high
        require(odd, "frames", f"{low} to {high}", "an odd number from 3 to 999")
        _require_ranges(average_frames, [dark], ranges=ranges)
    scenes = {}
    for name, path in (scene for source in sources for scene in find_scenes(source)):
        if name in scenes:
            raise ValueError(f"{path}: has the same name as {scenes[name]}; rename one of the two")
        scenes[name] = path
    _require_elsewhere(output_dir, "AB", scenes.values())
    for side in "AB":
        (output_dir / side).mkdir(parents=True, exist_ok=True)

    # One scene after the other is read, while threads blur the frames that were read before.
    failures, left_out, n_pairs = [], Counter(), 0
    settings = {"n_per_frame": n_per_frame, "crop": crop, "min_sharpness": min_sharpness, "seed": seed}
    write_pairs = functools.partial(_write_pairs, output_dir, frames is None, ranges, **settings)
    with one_opencv_thread() if frames is None else nullcontext(), tqdm(desc="Blurring", unit=" pairs") as progress:
        for scene, path in scenes.items():
            groups = _group_frames(scene, path, frames, every, crop, scale, seed, failures.append)
            reasons = Counter()
            for reason in run_ahead(write_pairs, groups, n_workers):
                reasons[reason] += 1
                progress.update(0 if reason else n_per_frame)
            n_made = reasons.pop(None, 0) * n_per_frame
            if not n_made and reasons:
                why = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
                failures.append(BadImage(f"{path}: no pair was made of it ({why})"))
            n_pairs += n_made
            left_out += reasons
    return n_pairs, dict(left_out), failures


def _group_frames(scene, path, frames, every, crop, scale, seed, report):
    """Yields `(scene, number, group)`: the consecutive frames that make a pair, and the number of the sharp one.

    Groups are two frames that overlap by one if `frames` is None, else a random number of frames without overlap.
    """
    group, last, n_groups = [], None, 0
    try:
        for number, frame in read_frames(path, report, scale):
            if group and (number != last + 1 or frame.shape != group[-1].shape):
                group = []  # a frame is missing, or the size has changed
            if not group:
                _require_size(path, frame, max(crop or 0, 32))
                sizes = [2] if frames is None else [n for n in range(frames[0], frames[1] + 1) if n % 2]
                size = int(_generator(seed, number, name=scene).choice(sizes))
            group.append(frame)
            last = number
            if len(group) == size:
                if n_groups % every == 0:
                    yield scene, number - size // 2, group
                n_groups += 1
                group = group[1:] if frames is None else []
    except BadImage as error:
        report(error)


def _write_pairs(output_dir, along_flow, ranges, scene, number, group, *, n_per_frame, crop, min_sharpness, seed):
    """Writes the pairs of a group of frames. Returns None, or the reason if the group is left out."""
    sharp = group[0] if along_flow else group[len(group) // 2]
    if any(is_cut(*two) for two in itertools.pairwise(group)):
        return "at a scene cut"
    if sharpness(sharp) < min_sharpness:
        return "blurred"
    if is_still(group[0], group[-1]):
        return "still"
    blur = functools.partial(average_frames, group)
    if along_flow:
        flow = optical_flow(*group)
        if speed(flow) < 0.5:
            return "still"
        if unreliable_share(flow, optical_flow(*group[::-1])) > 0.3:
            return "with unreliable flow"
        blur = functools.partial(random_flow_blur, sharp, flow)

    for i in range(n_per_frame):
        rng = _generator(seed, number, i, name=scene)
        for _ in range(4):
            window = random_window(rng, sharp, crop)
            if sharpness(sharp[window]) >= min_sharpness:
                break
        name = f"{scene}_{number:06}" + (_number(i, n_per_frame) if n_per_frame > 1 else "")
        write_pair(output_dir, name, blur(rng, window, **ranges), sharp[window])
    return None


def run_ahead(function, jobs, n_workers=None):
    """Yields the results of `function(*job)` in the order of the jobs, a few computed ahead by threads."""
    # Threads suffice: NumPy, SciPy and Pillow release the interpreter lock. A process would import Keras again.
    n_workers, ahead = n_workers or os.cpu_count(), deque()
    with ThreadPoolExecutor(n_workers) as executor:
        try:
            for job in jobs:
                ahead.append(executor.submit(function, *job))
                if len(ahead) > 2 * n_workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            executor.shutdown(cancel_futures=True)


def _require_ranges(blur, *arguments, ranges):
    """Raises ValueError if a range is wrong: tries both ends of each range that is ever drawn from."""
    rng = np.random.default_rng(0)
    for name, limits in ranges.items():
        draw(rng, name, limits)
    ranges = {name: limits for name, limits in ranges.items() if np.shape(limits) != (3,) or limits[2]}
    for end in (0, 1):
        ends = {name: limits[end] if isinstance(limits, tuple | list) else limits for name, limits in ranges.items()}
        blur(*arguments, rng, **ends)


def _require_counts(seed, scale, **counts):
    require(0 < scale <= 1, "scale", scale, "more than 0 and at most 1")
    require(seed >= 0, "seed", seed, "at least 0")
    for name, count in counts.items():
        require(count is None or count >= 1, name, count, "at least 1")


def _require_elsewhere(output_dir, names, sources):
    for name in names:
        if (output_dir / name).resolve() in {source.resolve() for source in sources}:
            raise ValueError(f"{output_dir}: its folder {name} is also read from; choose another")


def _require_size(path, pixels, side):
    height, width = pixels.shape[:2]
    if min(height, width) < side:
        raise BadImage(f"{path}: is {width}x{height}; at least {side}x{side} is required")


def _find_by_stem(folder):
    """Returns the image files of a folder by name without extension; two must not share it."""
    by_stem = {}
    for path in find_images(folder):
        other = by_stem.setdefault(path.stem, path)
        if other != path:
            raise ValueError(f"{path}: would be written to the same file as {other.name}; rename one of the two")
    return by_stem


def _generator(*numbers, name):
    return np.random.default_rng([*numbers, int.from_bytes(os.fsencode(name), "big")])


def _number(i, count):
    return f"{i:0{len(str(count - 1))}}"


def drop_grey_copies(photograph):
    """Returns the pixels with one channel if the photograph is grey: equal channels must not get different noise."""
    return photograph.pixels[..., :1] if photograph.grey else photograph.pixels


def _read_mask(path, photograph, pixels, scale):
    if path is None:
        return None
    mask = read_photograph(path).pixels[..., :1]
    if mask.shape[:2] != pixels.shape[:2]:
        (height, width, _), (of_height, of_width) = mask.shape, pixels.shape[:2]
        raise BadImage(f"{path}: is {width}x{height}, but {photograph} is {of_width}x{of_height}; one size is required")
    return reduce(mask, scale)[..., 0] / np.float32(255)


def random_window(rng, pixels, side):
    """Returns the slices `(rows, columns)` of a square of `side` px anywhere in a picture; of all if `side` is None."""
    if side is None:
        return slice(None), slice(None)
    top, left = (int(rng.integers(0, length - side + 1)) for length in pixels.shape[:2])
    return slice(top, top + side), slice(left, left + side)


def write_pair(output_dir, name, blurred, sharp):
    """Writes uint8 `(H, W, 3)`, or `(H, W, 1)` for grey, to `A/<name>.png` and `B/<name>.png`; the folders exist."""
    for side, pixels in (("A", blurred), ("B", sharp)):
        grey = pixels.shape[-1] == 1
        # Level 1 is five times as fast as Pillow's default; the files are a tenth larger.
        image = Photograph(np.repeat(pixels, 3, axis=-1) if grey else pixels, None, grey, "PNG", {"compress_level": 1})
        write_photograph(output_dir / side / f"{name}.png", image)
