"""Weight files of Keras and of this package."""

from deblur_gan.weights import load_generator, save_generator


def write(generator, path, precision, facts):
    """Writes a weight file that also states what trained the generator."""
    save_generator(generator, path, facts.get("training"), precision)


def load(path, generator):
    """Loads a generator from a weight file."""
    return load_generator(path)
