"""Pairs of blurred and sharp photographs on disk, made from sharp photographs and from recordings."""

import io
import os
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from deblur_gan.blur.camera import KINDS, random_blur
from deblur_gan.blur.exposure import average_frames
from deblur_gan.blur.optical_flow import optical_flow, random_flow_blur, speed, unreliable_share
from deblur_gan.blur.ranges import draw, require
from deblur_gan.blur.recordings import find_scenes, is_cut, is_still, read_frames, reduced, sharpness
from deblur_gan.files import write_bytes
from deblur_gan.images.photographs import BadImage, Photograph, find_images, read_photograph, write_photograph


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
    **knobs,
):
    """Makes a folder of pairs, as training and testing read it, from a folder of sharp photographs.

    `output_dir/A/<name>.png` is blurred, `output_dir/B/<name>.png` sharp, both 8-bit RGB (or grey where the photograph
    is grey) without transparency. The name is that of the photograph, with a number behind it where `n_per_image` is
    more than 1. The blur of a pair depends on `seed`, the file name and the number alone: not on the other files of
    the folder, nor on `n_workers`. Files of the same name are replaced.

    Args:
        input_dir: str or Path, a folder of photographs in any format that `read_photograph` reads.
        output_dir: str or Path; made where missing.
        n_per_image: int, at least 1, pairs from each photograph.
        seed: int, at least 0.
        n_workers: int, threads that work at the same time; by default as many as there are processor cores.
        save_kernels: bool, write `output_dir/kernels/<name>.png` too: the kernel of the camera's path, 16-bit grey, its
            largest value at 65535; divided by its sum it is the kernel again.
        kind: one of `blur.KINDS`, "handheld" or "paper": which knobs `random_blur` gets.
        crop: int, px, height and width of the part, anywhere in the photograph, that is kept; None for all of it.
        scale: float in (0, 1], factor to both sides of the photographs and masks, before anything else.
        mask_dir: str or Path, a folder of pictures that bear the names and have the sizes of the photographs: white
            where something moves of its own, black elsewhere. A photograph without one has a drawn outline.
        **knobs: of `random_blur`, in place of those of `kind`.

    Returns:
        `(n_pairs, failures)`: int, and a list of `BadImage`, one for each file that could not be used.

    Raises:
        NotADirectoryError: if `input_dir` or `mask_dir` is not a folder.
        ValueError: if it holds no photographs, two of one name, or is the folder A or B that would be written into;
            or if an argument is out of its range. Nothing is written then.
        OSError: if a file cannot be written.
    """
    input_dir, output_dir = Path(input_dir), Path(output_dir)
    require(kind in KINDS, "kind", repr(kind), f"one of {', '.join(KINDS)}")
    knobs = {**KINDS[kind], **knobs}
    _try_out(random_blur, np.zeros((1, 1, 3), np.uint8), knobs=knobs)
    _require_counts(n_per_image=n_per_image, crop=crop, seed=seed, scale=scale)
    paths, masks = _by_stem(input_dir), _by_stem(mask_dir) if mask_dir else {}
    if not paths:
        raise ValueError(f"{input_dir}: holds no photographs")
    for name in ("A", "B", "kernels"):
        if (output_dir / name).resolve() == input_dir.resolve():
            raise ValueError(f"{output_dir}: its folder {name} is where the photographs come from; choose another")
    for name in ("A", "B", "kernels") if save_kernels else ("A", "B"):
        (output_dir / name).mkdir(parents=True, exist_ok=True)

    digits = len(str(n_per_image - 1))

    def make_pairs(path):
        try:
            sharp = planes(read_photograph(path))
            mask = _read_mask(masks.get(path.stem), path, sharp, scale)
            sharp = reduced(sharp, scale)
            _require_room(path, sharp, crop or 0)
        except BadImage as error:
            return error
        for i in range(n_per_image):
            name = path.stem if n_per_image == 1 else f"{path.stem}_{i:0{digits}}"
            rng = np.random.default_rng([seed, i, int.from_bytes(os.fsencode(path.name), "big")])
            window = _random_window(rng, sharp, crop)
            blurred, kernel = random_blur(sharp, rng, mask=mask, window=window, **knobs)
            write_pair(output_dir, name, blurred, sharp[window])
            if save_kernels:
                _write_kernel(output_dir / "kernels" / f"{name}.png", kernel)
        return None

    # Threads: NumPy, SciPy and Pillow let others run while they compute, and a process would import Keras again.
    with ThreadPoolExecutor(n_workers or os.cpu_count()) as executor:
        futures = [executor.submit(make_pairs, path) for path in paths.values()]
        try:
            failures = [future.result() for future in tqdm(futures, desc="Blurring", unit="photograph")]
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise
    failures = [failure for failure in failures if failure]
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
    **knobs,
):
    """Makes a folder of pairs from recordings: along their optical flow, or as averages of their frames.

    Without `frames`, each frame but the last is blurred along its optical flow to the next, by a length drawn anew:
    for recordings at 24 to 60 frames a second. With `frames`, so many frames in a row are averaged, and the one in
    their middle is the sharp one, as GoPro and REDS were made: for recordings at 120 a second and more.

    `output_dir/A/<scene>_<frame>.png` is blurred, `B/<scene>_<frame>.png` sharp and untouched; `pairs.set_aside` keeps
    a scene together. The number of the frame is followed by that of the pair where `n_per_frame` is more than 1. The
    blur of a pair depends on the frames, `seed`, its scene's name and its numbers alone. Files of the same name are
    replaced.

    Frames are left out before and after a scene cut, where nothing moves, where they are blurred already, and where
    flow forward and back again does not agree in three of ten pixels.

    Args:
        sources: list of str or Path: video files, folders of frames, folders that hold such files or folders.
        output_dir: str or Path; made where missing.
        frames: None, or `(low, high)`: how many frames make a pair, an odd number drawn from there for each.
        n_per_frame: int, at least 1, pairs from each frame, each with another blur and another crop.
        every: int, at least 1: of so many frames, or groups of frames, in a row the first is used.
        crop: int, px, height and width of the part, anywhere in the frame, that is kept; None for all of it.
        scale: float in (0, 1], factor to both sides of the frames, before anything else.
        min_sharpness: float, what `frames.sharpness` is to be at least, of the frame, and, where one of four draws has
            it, of the part that is kept.
        seed: int, at least 0.
        n_workers: int, threads that work at the same time; by default as many as there are processor cores.
        **knobs: of `flow.random_flow_blur`, or, with `frames`, of `light.average_frames`.

    Returns:
        `(n_pairs, left_out, failures)`: int; dict from a reason to the number of frames, or groups of frames, that were
        left out for it; and a list of `BadImage`, one for each fault and each recording that gave no pair.

    Raises:
        FileNotFoundError: if a source is missing.
        ImportError: without OpenCV, if `frames` is None.
        ValueError: if a source holds no recording, if two have the same name, or an argument is out of its range.
            Nothing is written then.
        OSError: if a file cannot be written.
    """
    output_dir = Path(output_dir)
    _require_counts(n_per_frame=n_per_frame, every=every, crop=crop, seed=seed, scale=scale)
    dark = np.zeros((32, 32, 3), np.uint8)
    if frames is None:
        _try_out(random_flow_blur, dark, np.zeros((32, 32, 2), np.float32), knobs=knobs)
    else:
        low, high = frames
        require(
            3 <= low <= high and low + (low + 1) % 2 <= high, "frames", f"{low} to {high}", "an odd number from 3 on"
        )
        _try_out(average_frames, [dark], knobs=knobs)
    scenes = {}
    for name, path in (scene for source in sources for scene in find_scenes(source)):
        if name in scenes:
            raise ValueError(f"{path}: has the same name as {scenes[name]}; rename one of the two")
        scenes[name] = path
    for side in "AB":
        if any(path.resolve() == (output_dir / side).resolve() for path in scenes.values()):
            raise ValueError(f"{output_dir}: its folder {side} is where the frames come from; choose another")
    for side in "AB":
        (output_dir / side).mkdir(parents=True, exist_ok=True)

    def write_pairs(scene, number, sharp, blur):
        for i in range(n_per_frame):
            rng = np.random.default_rng([seed, number, i, int.from_bytes(os.fsencode(scene), "big")])
            for _ in range(4):
                window = _random_window(rng, sharp, crop)
                if sharpness(sharp[window]) >= min_sharpness:
                    break
            name = f"{scene}_{number:06}" + (f"{i:0{len(str(n_per_frame - 1))}}" if n_per_frame > 1 else "")
            write_pair(output_dir, name, blur(rng, window), sharp[window])
        return None

    def along_flow(scene, number, frame, following):
        if is_cut(frame, following):
            return "at a scene cut"
        if sharpness(frame) < min_sharpness:
            return "blurred"
        flow = optical_flow(frame, following)
        if is_still(frame, following) or speed(flow) < 0.5:
            return "still"
        if unreliable_share(flow, optical_flow(following, frame)) > 0.3:
            return "with unreliable flow"
        return write_pairs(
            scene, number, frame, lambda rng, window: random_flow_blur(frame, flow, rng, window, **knobs)
        )

    def of_average(scene, number, group):
        if any(is_cut(*two) for two in zip(group, group[1:], strict=False)):
            return "at a scene cut"
        sharp = group[len(group) // 2]
        if sharpness(sharp) < min_sharpness:
            return "blurred"
        if is_still(group[0], group[-1]):
            return "still"
        return write_pairs(scene, number, sharp, lambda rng, window: average_frames(group, rng, window, **knobs))

    def jobs(scene, path):
        """Yields what is to be done with a recording as it is read: a function and its arguments."""
        group, last, n_groups = [], None, 0
        for number, frame in read_frames(path, failures.append, scale):
            if group and (number != last + 1 or frame.shape != group[-1].shape):
                group = []
            if not group:
                _require_room(path, frame, max(crop or 0, 32))
                rng = np.random.default_rng([seed, number, int.from_bytes(os.fsencode(scene), "big")])
                wanted = 2 if frames is None else int(rng.choice([n for n in range(low, high + 1) if n % 2]))
            group.append(frame)
            last = number
            if len(group) == wanted:
                if n_groups % every == 0 and frames is None:
                    yield along_flow, scene, number - 1, *group
                elif n_groups % every == 0:
                    yield of_average, scene, number - wanted // 2, group
                n_groups += 1
                group = group[1:] if frames is None else []

    failures, left_out, n_pairs = [], Counter(), 0
    n_workers = n_workers or os.cpu_count()
    with ThreadPoolExecutor(n_workers) as executor, tqdm(desc="Blurring", unit=" pairs") as progress:
        try:
            for scene, path in scenes.items():
                reasons, ahead = Counter(), deque()

                def collect(n, reasons=reasons, ahead=ahead):
                    for _ in range(n):
                        reason = ahead.popleft().result()
                        reasons[reason] += 1
                        progress.update(0 if reason else n_per_frame)

                try:
                    for function, *arguments in jobs(scene, path):
                        ahead.append(executor.submit(function, *arguments))
                        collect(len(ahead) - 2 * n_workers)
                except BadImage as error:
                    failures.append(error)
                collect(len(ahead))
                made = reasons.pop(None, 0) * n_per_frame
                if not made and reasons:
                    why = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
                    failures.append(BadImage(f"{path}: no pair was made of it ({why})"))
                n_pairs += made
                left_out += reasons
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise
    return n_pairs, dict(left_out), failures


def _try_out(blur, *arguments, knobs):
    """Complains about knobs before work starts: of each that is ever drawn, both ends are tried."""
    rng = np.random.default_rng(0)
    for name, knob in knobs.items():
        draw(rng, name, knob)
    knobs = {name: knob for name, knob in knobs.items() if np.shape(knob) != (3,) or knob[2]}
    for end in (0, 1):
        ends = {name: knob[end] if isinstance(knob, (tuple, list)) else knob for name, knob in knobs.items()}
        blur(*arguments, rng, **ends)


def _require_counts(seed, scale, **counts):
    require(0 < scale <= 1, "scale", scale, "more than 0 and at most 1")
    require(seed >= 0, "seed", seed, "at least 0")
    for name, count in counts.items():
        require(count is None or count >= 1, name, count, "at least 1")


def _require_room(path, pixels, side):
    height, width = pixels.shape[:2]
    if min(height, width) < side:
        raise BadImage(f"{path}: is {width}x{height}; at least {side}x{side} is required")


def _by_stem(folder):
    """The image files of a folder by name without extension; no two may share it."""
    by_stem = {}
    for path in find_images(folder):
        other = by_stem.setdefault(path.stem, path)
        if other != path:
            raise ValueError(f"{path}: would be written to the same file as {other.name}; rename one of the two")
    return by_stem


def planes(photograph):
    """The pixels, with one channel if the photograph is grey: its three must not get noise of their own."""
    return photograph.pixels[..., :1] if photograph.grey else photograph.pixels


def _read_mask(path, photograph, pixels, scale):
    if path is None:
        return None
    mask = read_photograph(path).pixels[..., :1]
    if mask.shape[:2] != pixels.shape[:2]:
        (height, width, _), (of_height, of_width) = mask.shape, pixels.shape[:2]
        raise BadImage(f"{path}: is {width}x{height}, but {photograph} is {of_width}x{of_height}; one size is required")
    return reduced(mask, scale)[..., 0] / np.float32(255)


def _random_window(rng, pixels, crop):
    if crop is None:
        return slice(0, pixels.shape[0]), slice(0, pixels.shape[1])
    top, left = (int(rng.integers(0, side - crop + 1)) for side in pixels.shape[:2])
    return slice(top, top + crop), slice(left, left + crop)


def write_pair(output_dir, name, blurred, sharp):
    """Writes `A/<name>.png` and `B/<name>.png`, uint8 `(H, W, 3)` or, grey, `(H, W, 1)`."""
    for side, pixels in (("A", blurred), ("B", sharp)):
        grey = pixels.shape[-1] == 1
        # Five times as fast as Pillow's default, for files that are a tenth larger.
        image = Photograph(np.repeat(pixels, 3, axis=-1) if grey else pixels, None, grey, "PNG", {"compress_level": 1})
        write_photograph(output_dir / side / f"{name}.png", image)


def _write_kernel(path, kernel):
    encoded = io.BytesIO()
    Image.fromarray(np.rint(65535 * kernel / kernel.max()).astype(np.uint16)).save(encoded, "PNG")
    write_bytes(path, encoded.getbuffer())
