"""Compares files of weights by PSNR and by their distance to the sharp photographs in the features of VGG19.

python docs/measure_vgg19.py --data_dir reds_640x360/val --vgg_weights vgg19_to_block3_conv4.h5 \
    --weight_path weights/generator.h5 --weight_path weights/generator_gan.h5
"""

from pathlib import Path

import click
import numpy as np

from deblur_gan import shipped_generator
from deblur_gan.commands import command


def vgg19_features(path):
    """Builds VGG19 up to `block3_conv4`, a convolution after the loss's, for images in levels: `keras.Model`.

    `path` is a Keras `.h5` file of its weights. Raises ValueError with one line if it is not.
    """
    from deblur_gan.backend import keras
    from deblur_gan.training.losses import IMAGENET_MEAN_BGR, PerceptualLoss
    from deblur_gan.weights import hdf5

    layers = keras.layers
    features = PerceptualLoss("vgg19", path).features
    last = layers.Conv2D(256, 3, padding="same", activation="relu")
    image = keras.Input((None, None, 3))
    model = keras.Model(image, last(features(keras.ops.flip(image, axis=-1) - np.array(IMAGENET_MEAN_BGR, "float32"))))
    with hdf5.opened(path) as root:
        following = [array.read() for layer in hdf5.layers(root)[7:8] for array in layer.arrays]
    if [array.shape for array in following] != [(3, 3, 256, 256), (256,)]:
        raise ValueError(f"{path}: ends before block3_conv4")
    last.set_weights(following)
    return model


@command()
@click.option("--data_dir", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of pairs.")
@click.option("--vgg_weights", type=click.Path(exists=True), required=True, help="Keras .h5 file of VGG19.")
@click.option("--weight_path", type=click.Path(exists=True), multiple=True, default=[shipped_generator()])
@click.option("--n_images", type=click.IntRange(min=1), help="Pairs, evenly spread.  [default: all]")
def main(data_dir, vgg_weights, weight_path, n_images):
    """Prints for each file the mean gain in PSNR (the least), and the distance to the sharp photographs.

    The distance is the root mean squared difference of the features of block3_conv4, divided by 127.5 as in the
    perceptual loss. Its ratios to the distance of the blurred photographs and of the first file follow.
    """
    from deblur_gan.backend import dtype_to_restore_in, start_backend

    start_backend(restoring=True)
    from skimage.metrics import peak_signal_noise_ratio as psnr

    from deblur_gan.data import find_pairs
    from deblur_gan.data.split import evenly
    from deblur_gan.images.photographs import read_rgb
    from deblur_gan.restoring.deblur import deblur
    from deblur_gan.weights import load_generator

    vgg19 = vgg19_features(vgg_weights)

    def features(image):
        return vgg19.predict(image[None].astype("float32"), verbose=0) / 127.5

    pairs, _ = find_pairs(data_dir)
    pairs = [(read_rgb(pair.blurred), read_rgb(pair.sharp)) for pair in evenly(pairs, n_images or len(pairs))]
    wanted = [features(sharp) for _, sharp in pairs]

    def distances(images):
        return [
            float(np.sqrt(np.mean((features(image) - goal) ** 2))) for image, goal in zip(images, wanted, strict=True)
        ]

    before = np.mean(distances([blurred for blurred, _ in pairs]))
    click.echo(f"{data_dir}: {len(pairs)} pairs, distance of the blurred ones {before:.3f}\n")
    click.echo("| weights | gain [dB] | distance | of the blurred | of the first |")
    click.echo("|---|---:|---:|---:|---:|")
    first = None
    for path in weight_path:
        generator = load_generator(path, dtype_to_restore_in())
        results = [deblur(generator, blurred) for blurred, _ in pairs]
        gains = [
            psnr(sharp, image) - psnr(sharp, blurred) for image, (blurred, sharp) in zip(results, pairs, strict=True)
        ]
        distance = np.mean(distances(results))
        first = first or distance
        cells = [Path(path).name, f"{np.mean(gains):+.2f} ({min(gains):+.2f})", f"{distance:.3f}"]
        click.echo(f"| {' | '.join([*cells, f'{distance / before:.3f}', f'{distance / first:.3f}'])} |")


if __name__ == "__main__":
    main()
