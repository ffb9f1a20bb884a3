"""Restores blurred photographs: python scripts/deblur_image.py --input_dir photos --output_dir restored"""

from deblur_gan.commands.restore import restore as deblur_image

if __name__ == "__main__":
    deblur_image()
