"""How the package is built: the order of its folders, and the one folder that may import a backend or a format."""

import ast
import inspect

import pytest
from conftest import ROOT

from deblur_gan.data.training_set import TrainingSet
from deblur_gan.networks import critic_model, generator_model
from deblur_gan.training.gan import DeblurGAN
from deblur_gan.training.losses import PerceptualLoss
from deblur_gan.training.options import Options

PACKAGE = ROOT / "deblur_gan"

# From the bottom up: a folder imports from itself and from the lines above its own.
ORDER = [
    "architectures files",
    "backend images",
    "networks video",
    "blur weights",
    "data restoring",
    "evaluation exporting",
    "api training",
    "web",
    "commands",
]
LEVELS = {name: level for level, names in enumerate(ORDER) for name in names.split()}

# A backend's own functions, and the libraries of a file format, each have one place.
ONLY_IN = {
    "tensorflow": ("training/gradients", "exporting/"),
    "jax": ("training/gradients", "training/distributed"),
    "torch": ("training/gradients", "training/torch_compile", "weights/pytorch"),
    "h5py": ("weights/hdf5",),
    "skimage.metrics": ("evaluation/metrics",),
    "click": ("commands/", "backend"),
}


def imported(path):
    """Every module that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


MODULES = {path.relative_to(PACKAGE).with_suffix("").as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_from_its_folder_and_from_those_below(name):
    place = name.split("/")[0]
    for module in imported(MODULES[name]):
        package, _, rest = module.partition(".")
        other = rest.split(".")[0]
        if package == "deblur_gan" and other in LEVELS and place in LEVELS and other != place:
            assert LEVELS[other] < LEVELS[place], f"{name} imports {module}"
        for only, places in ONLY_IN.items():
            if module == only or module.startswith(f"{only}."):
                assert name.startswith(places), f"{name} imports {module}"


def test_every_folder_has_a_place_in_the_order():
    assert {name.split("/")[0] for name in MODULES} - {"__init__", "__main__"} == set(LEVELS)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_begins_with_a_sentence_about_its_purpose(name):
    first, *more = (ast.get_docstring(ast.parse(MODULES[name].read_text(encoding="utf-8"))) or "").splitlines() or [""]
    assert name == "__main__" or first.endswith((".", ":")) or more


@pytest.mark.parametrize(
    ("function", "other_names", "other_values"),
    [
        (DeblurGAN, {}, {"seed"}),  # None: another one each time
        (TrainingSet, {}, {"blur", "batch_size", "working_scale"}),  # a function; the smallest; a range, not its text
        (PerceptualLoss, {"network": "vgg", "weights": "vgg_weights"}, set()),
        (generator_model, {"architecture": "generator"}, set()),
        (critic_model, {"architecture": "critic"}, set()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_defaults_are_those_of_the_options(function, other_names, other_values):
    options, n_compared = {name: field.default for name, field in Options.__dataclass_fields__.items()}, 0
    for name, parameter in inspect.signature(function).parameters.items():
        option = other_names.get(name, name)
        if option in options and parameter.default is not parameter.empty and name not in other_values:
            assert parameter.default == options[option], name
            n_compared += 1
    assert n_compared
