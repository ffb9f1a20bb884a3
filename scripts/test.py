"""Scores generators on pairs of photographs: python scripts/test.py --data_dir GOPRO_Large/test --protocol full"""

from deblur_gan.commands.test import test

if __name__ == "__main__":
    test()
