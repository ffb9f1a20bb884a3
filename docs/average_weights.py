"""Writes the mean of the weights of several generators of the same network, such as those of some epochs of a run.

python docs/average_weights.py RUN/generator_010_*.h5 RUN/generator_020_*.h5 --output mean.h5
"""

import click
import numpy as np

from deblur_gan.commands import command


@command()
@click.argument("paths", type=click.Path(exists=True, dir_okay=False), nargs=-1, required=True)
@click.option("--output", type=click.Path(), required=True, help="The file, .h5; an existing one is replaced.")
def main(paths, output):
    """Writes the mean as float16. It records what trained each of the files, in their order, as `mean_of`."""
    from deblur_gan.backend import start_backend

    start_backend()
    from deblur_gan.weights import BadWeights, describe, load_generator, save_generator
    from deblur_gan.weights.identify import name_of

    found = [describe(path) for path in paths]
    first, *others = map(name_of, found)
    for path, other in zip(paths[1:], others, strict=True):
        if other != first:
            raise BadWeights(f"{path}: holds a {other}, but {paths[0]} a {first}")
    generators = [load_generator(path) for path in paths]
    means = [np.mean(weights, axis=0) for weights in zip(*(each.get_weights() for each in generators), strict=True)]
    generators[0].set_weights(means)
    training = {"mean_of": [each.get("training", {}) for each in found]}
    save_generator(generators[0], output, training, "float16")


if __name__ == "__main__":
    main()
