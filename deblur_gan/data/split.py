"""Splits pairs into those to train on and those to validate with."""

import numpy as np


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


def evenly(items, n):
    """`n` of the items, evenly spread; all if there are fewer."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(n, len(items))).round().astype(int)]
