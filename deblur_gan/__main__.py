"""`python -m deblur_gan`: the command `deblur-gan`, where its name is not found."""

from deblur_gan.commands import main

main(prog_name="deblur-gan")
