"""Makes training pairs from photographs: python scripts/blur_images.py --input_dir photos --output_dir pairs"""

from deblur_gan.commands.blur_images import blur_images

if __name__ == "__main__":
    blur_images()
