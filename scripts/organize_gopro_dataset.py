"""Lays out the GoPro data set as images/{train,test}/{A,B}/ with unique file names."""

from deblur_gan.commands.organize import organize as main

if __name__ == "__main__":
    main()
