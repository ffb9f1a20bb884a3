"""Trains DeblurGAN: python scripts/train.py --n_epochs 200"""

from deblur_gan.commands.train import train

if __name__ == "__main__":
    train()
