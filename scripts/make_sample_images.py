"""Makes a small data set to try things with: python scripts/make_sample_images.py"""

from deblur_gan.commands.samples import samples as make_sample_images

if __name__ == "__main__":
    make_sample_images()
