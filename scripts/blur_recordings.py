"""Makes training pairs from videos: python scripts/blur_recordings.py --output_dir pairs clip.mp4 frames/"""

from deblur_gan.commands.blur_recordings import blur_recordings

if __name__ == "__main__":
    blur_recordings()
