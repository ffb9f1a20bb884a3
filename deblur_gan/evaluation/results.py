"""`evaluate` scores weight files and writes a folder of results for each."""

import json
import sys
from collections import defaultdict
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from deblur_gan.backend import dtype_to_restore_in
from deblur_gan.data.pairs import find_pairs
from deblur_gan.evaluation.journal import CSV_NAME, SCORE_COLUMNS, Journal, PairFiles, owner, score_versions
from deblur_gan.evaluation.measure import KINDS, PROTOCOLS, measure, restore_pair, summarize
from deblur_gan.evaluation.metrics import METRICS
from deblur_gan.evaluation.report import Example, Section, write_page
from deblur_gan.files import csv_bytes, locked, printable, sha256_of, whole_file, write_bytes
from deblur_gan.images.photographs import BadImage
from deblur_gan.restoring.working_size import SMALLER_SIZE, WORKING_SIDE
from deblur_gan.weights import BadWeights, describe, load_generator

JSON_NAME, PAGE_NAME = "metrics.json", "index.html"


class Result(NamedTuple):
    """The scores of one weight file, and the folder that holds them.

    `rows` is a dict from protocol to list of `Row`, and `summaries` one from protocol to
    `{"overall": summary, "sequences": {sequence: summary}}`, see `summarize`.
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
    ensemble=1,
    scale="auto",
    align=0,
    save_images=False,
    precision="float32",
    command=(),
):
    """Scores generators on pairs of blurred and sharp photographs.

    For each weight file a folder below `output_dir` is filled: `metrics.csv` (one row for each pair and protocol,
    written as soon as it is measured), `metrics.json` (means, protocols, sha256, versions) and `index.html` (tables and
    pictures in one file). Several weight files also give `<output_dir>/comparison.csv`.

    The folder has the name of the file without its extension. If it contains the results of other weights, or several
    of `weight_paths` share the name, the name of the file's own folder is put before it (`<run>_generator_best`). If
    this is taken too, the beginning of the sha256 is appended.

    An interrupted run resumes. A row of `metrics.csv` is used again only if the weights, the content of both
    photographs, `tile_size`, `ensemble`, `scale`, `align`, the precision and the versions of the libraries are the
    same; other rows are measured again. Valid rows that are not asked for, and rows of pairs that `data_dir` does not
    have, stay only in `metrics.csv`. Rows of the same names with other photographs or settings are replaced when all is
    measured; one line on stderr counts them first.

    Args:
        weight_paths: list of str or Path, generators.
        data_dir: str or Path, see `find_pairs`.
        output_dir: str or Path; it is made if it does not exist.
        protocols: sequence of keys of `PROTOCOLS`.
        n_images: int, number of pairs to use, evenly spread over all; None is all.
        batch_size, tile_size, ensemble, scale, align: as `measure`.
        blur: "blur" or "blur_gamma", see `find_pairs`.
        save_images: bool, also write the restored images, as PNG under `restored/<protocol>/<sequence>/`.
        precision: str, as `backend.dtype_to_restore_in`.
        command: sequence of str, the command line, for `metrics.json`.

    Returns:
        `(results, problems)`: list of `Result`, and list of str, one line for each file that could not be used.

    Raises:
        NotADirectoryError: as `find_pairs`.
        BadWeights: as `load_generator`; if a weight file is given twice, or the output of its generator is not finite.
        BadImage: if no pair can be used, or two pairs have the same sequence and name.
        ValueError: if an argument is out of range.
        OSError: if results cannot be written; BlockingIOError if another process is writing them.

    >>> results, problems = evaluate(["weights/generator.h5"], "images/test")  # doctest: +SKIP
    >>> results[0].summaries["full"]["overall"]["gain"]["psnr"]  # doctest: +SKIP
    2.31
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
    dtype = dtype_to_restore_in(precision)
    how = {"tile_size": tile_size, "ensemble": ensemble, "scale": scale, "align": align}
    # All weight files are checked first, so that a bad one is not found after hours.
    descriptions = [describe(path) for path in weight_paths]
    for path, description in zip(weight_paths, descriptions, strict=True):
        if description["network"] != "generator":
            raise BadWeights(f"{path}: contains a {description['network']}; a generator is required")

    all_pairs, unmatched = find_pairs(data_dir, blur)
    if not all_pairs:
        raise BadImage(f"{data_dir}: no photograph has both a blurred and a sharp version")
    n_images = min(n_images or len(all_pairs), len(all_pairs))
    pairs = [all_pairs[i * len(all_pairs) // n_images] for i in range(n_images)]

    files, blurred_scores = PairFiles(all_pairs), defaultdict(dict)
    results = []
    with ExitStack() as locks:
        folders = _take_folders(Path(output_dir), weight_paths, locks)
        for path, description, (folder, sha256) in zip(weight_paths, descriptions, folders, strict=True):
            problems = [f"{left}: has no counterpart of the same name, or more than one" for left in unmatched]
            generator = load_generator(path, dtype)
            journal = Journal(folder, sha256, how, dtype, files, save_images)
            if journal.outdated:
                protocol, *name = journal.outdated[0][:3]
                notice = (
                    f"{folder / CSV_NAME}: when all is measured, {len(journal.outdated)} rows of other photographs or "
                    f"settings are replaced, such as {'/'.join(filter(None, name))} under {protocol}; take another "
                    "folder to keep them"
                )
                print(printable(notice), file=sys.stderr)
            sections = []
            try:
                for protocol in protocols:
                    scores = blurred_scores[protocol]
                    rows = _measure(generator, protocol, pairs, journal, how, batch_size, scores, problems)
                    if rows:
                        images = [(row, journal.thumbnail(row)) for row in rows]
                        examples = _examples(rows, generator, files, how)
                        sections.append(Section(protocol, _by_sequence(rows), images, examples))
            except FloatingPointError as error:
                raise BadWeights(f"{path}: {error}") from None
            if not sections:
                raise BadImage(f"none of {len(pairs)} pairs can be used; the first: {problems[len(unmatched)]}")
            measured = {section.protocol: [row for row, _ in section.images] for section in sections}
            rows = [row for found in measured.values() for row in found]
            journal.finish(rows)
            problems = list(dict.fromkeys(map(printable, problems)))
            summaries = {section.protocol: section.summary for section in sections}
            results.append(Result(folder.name, folder, measured, summaries))
            about = {
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": list(command),
                # The file's own fields come first, so that measured ones replace those of the same name.
                "weights": {**description, "path": str(path), "sha256": sha256},
                "data": {
                    "folder": str(data_dir),
                    "blur": blur,
                    "n_pairs": len(pairs),
                    "n_pairs_found": len(all_pairs),
                    "sha256": files.sha256(rows),
                },
                **how,
                "batch_size": batch_size,
                "precision": dtype.removeprefix("mixed_"),
                "versions": score_versions(),
                "device": str(getattr(generator.weights[0].value, "device", "CPU")),  # OpenVINO does not say
            }
            _write_json(results[-1], about, problems)
            _write_page(results[-1], about, problems, sections)
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
        sha256 = sha256_of(path)
        names = [stem, f"{real.parent.name}_{stem}", f"{stem}_{sha256[:8]}"]
        if stems.count(stem) > 1:
            del names[0]
        free = (output_dir / name for name in names if output_dir / name not in taken)
        folder = next((folder for folder in free if owner(folder) in (None, sha256)), None)
        if folder is None:
            raise BadWeights(f"{path}: {output_dir} holds {', '.join(names)} of other weights; take another folder")
        folder.mkdir(parents=True, exist_ok=True)
        locks.enter_context(locked(folder))
        if owner(folder) not in (None, sha256):  # another process was quicker, and has ended
            raise BadWeights(f"{path}: {folder} holds the results of other weights by now; try again")
        taken[folder] = sha256
    return list(taken.items())


def _measure(generator, protocol, pairs, journal, how, batch_size, blurred_scores, problems):
    """Measures what is not measured yet; returns the rows of all usable pairs, in their order."""
    rows, psnrs = {}, []

    def add(row):
        rows[row.pair_id] = row
        if not row.perfect:
            psnrs.append((row.blurred["psnr"], row.restored["psnr"]))
            blurred, restored = np.mean(psnrs, axis=0)
            progress.set_postfix_str(f"PSNR {blurred:.2f} -> {restored:.2f} dB", refresh=False)

    def unmeasured():
        for pair in progress:
            row = journal.row(protocol, pair)
            if row is None:
                yield pair
            else:
                blurred_scores[row.pair_id] = row.blurred
                add(row)

    settings = {**how, "batch_size": batch_size, "blurred_scores": blurred_scores, "problems": problems}
    with tqdm(pairs, desc=f"{journal.path.name}, {protocol}", unit="pair") as progress:
        for row in measure(generator, unmeasured(), protocol, **settings, on_restored=journal.add):
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
    write_bytes(path, csv_bytes(lines))


def _write_json(result, about, problems):
    protocols = {
        protocol: {"description": PROTOCOLS[protocol].description, **summary}
        for protocol, summary in result.summaries.items()
    }
    metrics = {name: metric.definition for name, metric in METRICS.items()}
    content = {**about, "metrics": metrics, "protocols": protocols, "problems": problems}
    try:
        text = json.dumps(content, indent=2, allow_nan=False)
    except RecursionError:  # a weight file may contain any JSON about its training
        content["weights"]["training"] = "nested too deeply"
        text = json.dumps(content, indent=2, allow_nan=False)
    write_bytes(result.folder / JSON_NAME, text.encode())


def _write_page(result, about, problems, sections):
    weights, data = about["weights"], about["data"]
    libraries = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    facts = {
        "Weights": f"{weights['path']} (sha256 {weights['sha256']})",
        "Network": ", ".join(f"{key} {weights[key]}" for key in ("architecture", "ngf", "n_blocks")),
        "Data": f"{data['folder']}, {data['n_pairs']} of {data['n_pairs_found']} pairs (sha256 {data['sha256']})",
        "Tiles": f"{about['tile_size']} pixels" if about["tile_size"] else "none asked for",
        "Working size": f"long sides of {WORKING_SIDE} and {WORKING_SIDE * SMALLER_SIZE:.0f} pixels"
        if about["scale"] == "auto"
        else f"own size times {about['scale']:g}",
        "Ensemble": f"the mean of {about['ensemble']} views" if about["ensemble"] > 1 else "none",
        "Aligned": f"by up to {about['align']} pixels" if about["align"] else "not",
        "Measured": f"{about['created']} on {about['device']} in {about['precision']} with {libraries}",
        "Command": " ".join(about["command"]),
    }
    with whole_file(result.folder / PAGE_NAME) as temporary:
        write_page(temporary, f"Deblurring with {result.name}", facts, sections, problems)


def _examples(rows, generator, files, how):
    """Restores the pairs with the best, the median and the worst gain in PSNR again, for the page."""
    ranked = sorted((row for row in rows if not row.perfect), key=lambda row: row.gain["psnr"])
    titles = {len(ranked) // 2: "Median gain", 0: "Worst gain", len(ranked) - 1: "Best gain"} if ranked else {}
    examples = []
    for place in sorted(titles, reverse=True):
        row = ranked[place]
        images = restore_pair(generator, files.pairs[row.pair_id], row.protocol, **how)
        examples.append(Example(titles[place], row, *images))
    return examples
