"""Splits pairs into those to train on and those to validate with."""

import numpy as np


def set_aside(pairs, seed, share=0.1):
    """Splits off whole scenes to validate with, so that no neighbouring frame is trained on.

    A scene is a sequence of a GoPro tree, or the files whose names differ only in the digits after the last underscore.
    Scenes of more than a quarter of all pairs are kept for training; if all scenes are that large, the smallest one is
    set aside. If all pairs are of one scene, single pairs are set aside, which are close to pairs that are trained on.

    Args:
        pairs: list of `Pair`.
        seed: int.
        share: float, about the share of the pairs to set aside; of two or more pairs, at least one.

    Returns:
        `(training, validation)`: two lists of `Pair` in the order of `pairs`.

    >>> from deblur_gan.data.pairs import Pair
    >>> training, validation = set_aside([Pair(f"{scene}_{i}", "", None, None) for scene in "ab" for i in "12"], seed=0)
    >>> len(training), len(validation), len({scene_of(pair) for pair in validation})
    (2, 2, 1)
    """
    scenes = {}
    for pair in pairs:
        scenes.setdefault(scene_of(pair), []).append(pair)
    candidates = [scene for scene in scenes.values() if len(scene) <= len(pairs) / 4]
    if not candidates:
        candidates = [min(scenes.values(), key=len)] if len(scenes) > 1 else [[pair] for pair in pairs]
    wanted = min(max(1, round(share * len(pairs))), len(pairs) - 1)
    validation = set()
    for number in np.random.default_rng(seed).permutation(len(candidates)):
        if len(validation) >= wanted:
            break
        validation.update(candidates[number])
    return [pair for pair in pairs if pair not in validation], [pair for pair in pairs if pair in validation]


def scene_of(pair):
    """Returns the scene of a `Pair`: its sequence, or its name without the digits after the last underscore.

    Of a sequence with folders in front, such as `RealBlur-J/scene001`, the last one counts: a list may also have
    `RealBlur-R/scene001`, the same scene in another format.
    """
    stem, underscore, number = pair.name.rpartition("_")
    return pair.sequence.rpartition("/")[2] or (stem if underscore and number.isdigit() else pair.name)


def evenly(items, n):
    """Returns `n` of the items, evenly spread; all if there are fewer."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(n, len(items))).round().astype(int)]
