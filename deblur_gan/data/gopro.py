"""Converts the GoPro data set to folders of pairs."""

import os
import shutil
from pathlib import Path

from tqdm import tqdm

from deblur_gan.data.pairs import find_pairs
from deblur_gan.files import whole_file
from deblur_gan.images.formats import IMAGE_EXTENSIONS


def organize_gopro(dir_in, dir_out, blur="blur", show_progress=False):
    """Links the files of the GoPro tree `{train,test}/<sequence>/{blur,blur_gamma,sharp}/` to `{train,test}/{A,B}/`.

    A file becomes `<sequence>_<frame>.png`, in `A/` if blurred and in `B/` if sharp. It is a hard link if the file
    system allows one (which takes no space), else a copy. Existing files are skipped, so an interrupted call can be
    repeated.

    Args:
        dir_in: str or Path, the unpacked `GOPRO_Large`.
        dir_out: str or Path, made if missing.
        blur: "blur" or "blur_gamma", which blurred frames to take.
        show_progress: bool, a progress bar on stderr.

    Returns:
        dict of the number of pairs in "train" and "test", if `dir_in` has them.

    Raises:
        NotADirectoryError: if `dir_in` is not such a tree.
        FileNotFoundError: if a frame has no counterpart; nothing is written then.
        FileExistsError: if `dir_out/{train,test}/{A,B}` contain other images, and nothing is written then; if a
            different file of that name exists, which is not changed.
        OSError: if a frame is no regular file, or cannot be linked or copied.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for side in ("blur", "sharp"):
    ...         Path(folder, "test", "GOPR1", side).mkdir(parents=True)
    ...         Path(folder, "test", "GOPR1", side, "000001.png").touch()
    ...     organize_gopro(folder, Path(folder, "images"))
    {'test': 1}
    """
    dir_in, dir_out = Path(dir_in), Path(dir_out)
    parts = [part for part in ("train", "test") if (dir_in / part).is_dir()]
    if not parts:
        raise NotADirectoryError(f"{dir_in}: contains neither train/ nor test/; the unpacked GOPRO_Large is required")
    found = {}
    for part in parts:
        found[part], unmatched = find_pairs(dir_in / part, blur)
        if unmatched:
            raise FileNotFoundError(
                f"{unmatched[0]}: has no counterpart, like {len(unmatched) - 1} other files of {dir_in / part}; "
                "unpack the data set again"
            )
    links = [
        (source, dir_out / part / side / "_".join(filter(None, (pair.sequence, f"{pair.name}{source.suffix}"))))
        for part, pairs in found.items()
        for pair in pairs
        for side, source in (("A", pair.blurred), ("B", pair.sharp))
    ]
    targets = {target for _, target in links}
    for folder in sorted({target.parent for target in targets}):
        for path in sorted(folder.rglob("*")):
            other = path.suffix.lower() in IMAGE_EXTENSIONS and path.is_file() and path not in targets
            if other and not path.name.startswith("."):
                raise FileExistsError(f"{path}: is not of {dir_in}; choose a folder without other images")
    for source, target in tqdm(links, desc="organizing", unit=" files", disable=not show_progress, leave=False):
        target.parent.mkdir(parents=True, exist_ok=True)
        _link_or_copy(source, target)
    return {part: len(pairs) for part, pairs in found.items()}


def _link_or_copy(source, target):
    source = Path(os.path.realpath(source, strict=True))  # the data set may consist of links, also of relative ones
    if not source.is_file():
        raise OSError(f"{source}: is a pipe, a socket or a device; an image file is required")
    if target.exists():
        found, wanted = target.stat(), source.stat()
        if (found.st_size, found.st_mtime_ns) != (wanted.st_size, wanted.st_mtime_ns):
            raise FileExistsError(f"{target}: is another file than {source}; move it away first")
        return
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        with whole_file(target) as temporary:
            shutil.copy2(source, temporary)
