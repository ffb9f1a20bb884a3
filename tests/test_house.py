"""How the package is built: which room may import which, what stands in one place alone, and one list of defaults."""

import ast
import inspect
import sys
from collections import defaultdict

import pytest
from conftest import ROOT

from deblur_gan.gan import DeblurGAN
from deblur_gan.losses import PerceptualLoss
from deblur_gan.networks import critic_model, generator_model
from deblur_gan.options import Options
from deblur_gan.training_set import TrainingSet

PACKAGE = ROOT / "deblur_gan"

# From the bottom up: a room imports from the floors below its own.
FLOORS = [
    "tensorflow_ops",
    "backend files gradients hdf5 interruption knobs metadata metrics moving_average networks options",
    "checkpoint guard light losses paths photographs pytorch",
    "blur flow frames gan pairs processes restoration weights",
    "encoding engines evaluation run_data run_folder synthesis training_set",
    "data recorder report samples video",
    "batch export journal",
    "inputs page results training",
    "commands",
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}
ROOMS = sorted(path for path in PACKAGE.glob("*.py") if not path.name.startswith("__"))
# One room in several files, on the top floor.
COMMANDS = sorted((PACKAGE / "commands").glob("*.py"))

# What stands in one place is imported in one place; TensorFlow is also a format of files, and converts.
ONLY_IN = {
    "tensorflow": ("gradients", "tensorflow_ops", "engines", "export"),
    "jax": ("gradients", "processes"),
    "torch": ("gradients",),
    "h5py": ("hdf5",),
    "skimage.metrics": ("metrics",),
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


def private_names(path):
    """What a file calls by a name of its own: functions, classes and constants at its top, methods, constants."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in [*tree.body, *(member for part in tree.body if isinstance(part, ast.ClassDef) for member in part.body)]:
        names = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
        if isinstance(node, ast.Assign):
            names = [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        yield from (name for name in names if name.startswith("_") and not name.startswith("__"))


@pytest.mark.parametrize("path", [*ROOMS, *COMMANDS], ids=lambda path: path.stem)
def test_a_room_says_its_purpose_and_stands_on_the_floors_below(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    first, *more = (ast.get_docstring(tree) or "").splitlines()
    assert first.endswith((".", ":")) or more, "a sentence says what the room is for"
    floor = FLOOR_OF["commands" if path in COMMANDS else path.stem]
    for module in imported(path):
        package, _, room = module.partition(".")
        if package == "deblur_gan" and room in FLOOR_OF:
            assert FLOOR_OF[room] < floor or path in COMMANDS and room == "commands", f"{path.stem} imports {room}"
        for only, places in ONLY_IN.items():
            assert not (module == only or module.startswith(f"{only}.")) or path.stem in places, module
    # About 350 lines; the readers of formats, each one description of one format, have more.
    assert path.stem in ("hdf5", "pytorch") or len(path.read_text(encoding="utf-8").splitlines()) < 400


def test_every_room_has_a_floor_and_a_line_in_the_readme():
    rooms = [path.stem for path in ROOMS]
    assert set(rooms) <= FLOOR_OF.keys(), "a new room needs a floor, above"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [room for room in rooms if f"[`{room}.py`](deblur_gan/{room}.py)" not in readme] == []


def test_options_stand_on_python_alone():
    assert {module.split(".")[0] for module in imported(PACKAGE / "options.py")} <= sys.stdlib_module_names


def test_a_private_name_has_one_meaning():
    places = defaultdict(set)
    for path in [*ROOMS, *COMMANDS]:
        for name in private_names(path):
            places[name].add(path)
    assert {name: rooms for name, rooms in places.items() if len(rooms) > 1} == {}


@pytest.mark.parametrize(
    ("function", "other_names", "other_values"),
    [
        (DeblurGAN, {}, {"seed"}),  # None: another one each time
        (TrainingSet, {}, {"blur", "batch_size"}),  # a function; the smallest, where nobody says what fits
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
