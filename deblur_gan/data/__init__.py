"""Pairs of blurred and sharp photographs, and the batches that training reads."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "pairs": ["Pair", "check_pairs", "find_pairs"],
        "split": ["set_aside"],
        "training_set": ["TrainingSet"],
        "gopro": ["organize_gopro"],
        "samples": ["write_sample_images"],
    },
)
