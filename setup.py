from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

setup(
    name="deblur-gan",
    version="0.1.0",
    description="DeblurGAN for Keras: blind motion deblurring with a conditional Wasserstein GAN",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["deblur_gan", "deblur_gan.*"]),
    install_requires=(HERE / "requirements.txt").read_text(encoding="utf-8").split(),
    extras_require={
        # tf_keras is Keras 2: the tests load our files with it and theirs with ours.
        "test": ["pytest>=8", "ruff>=0.6", "tf_keras>=2.18", "tifffile>=2023.4.12", "jax>=0.4.30"],
    },
)
