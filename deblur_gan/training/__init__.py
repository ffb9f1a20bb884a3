"""One training run: the algorithm, its losses, and everything that makes it resumable."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "run": ["Stopped", "learning_rate", "resume", "train"],
        "build": ["build_gan"],
        "options": ["BadOption", "Options"],
        "checkpoint": ["BadRun"],
        "gan": ["DeblurGAN"],
        "losses": ["PerceptualLoss", "gradient_penalty"],
    },
)
