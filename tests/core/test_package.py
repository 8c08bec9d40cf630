"""What the package loads, ships and offers; loading is looked at in a fresh interpreter."""

import importlib.metadata
import importlib.resources
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import napari_rln

ROOT = Path(__file__).resolve().parents[2]
SPACES = (napari_rln, napari_rln.psf, napari_rln.simulate, napari_rln.train)
WINDOWS = ("napari", "qtpy", "PyQt", "PySide", "magicgui", "superqt")


def loaded_after(code: str) -> list[str]:
    """Return the top-level modules that a fresh interpreter holds after some code."""
    report = "; import sys, json; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    modules: list[str] = json.loads(done.stdout.splitlines()[-1])
    return modules


def test_importing_the_package_loads_nothing_heavy():
    loaded = loaded_after("import napari_rln")
    assert "napari_rln" in loaded
    heavy = ("torch", "matplotlib", "scipy", "skimage", *WINDOWS)
    assert not [m for m in loaded if m.startswith(heavy) and m != "napari_rln"]


def test_the_core_loads_no_window():
    pytest.importorskip("numba")  # the compiled kernels are among the modules
    walk = (
        "import importlib, pkgutil, napari_rln; "
        "names = [m.name for m in pkgutil.walk_packages(napari_rln.__path__, 'napari_rln.') "
        "if not m.name.startswith('napari_rln.gui')]; "
        "assert len(names) > 20, names; "
        "assert 'napari_rln.cli.deconvolve_commands' in names, names; "
        "[importlib.import_module(name) for name in names]"
    )
    loaded = loaded_after(walk)
    assert "torch" in loaded
    assert not [m for m in loaded if m.startswith(WINDOWS) and m != "napari_rln"]


def test_what_computes_without_torch_does_not_load_it():
    code = (
        "import importlib, pkgutil, napari_rln.psf; "
        "names = ['io.volumes', 'deconvolution.noise', 'evaluate.comparison', 'evaluate.figure'] + "
        "['psf.' + m.name for m in pkgutil.iter_modules(napari_rln.psf.__path__)]; "
        "[importlib.import_module('napari_rln.' + name) for name in names]"
    )
    loaded = loaded_after(code)
    assert {"scipy", "tifffile", "matplotlib"} <= set(loaded)
    assert "torch" not in loaded


@pytest.mark.parametrize(
    ("fenced", "user"),
    [
        ("networks.cpu_kernels", "networks/inference.py"),
        ("networks.tensorflow_checkpoint", "cli/model_commands.py"),
    ],
)
def test_fenced_modules_have_one_user(fenced, user):
    package = Path(napari_rln.__file__).parent
    inside = package.joinpath(*fenced.split("."))
    users = {
        file.relative_to(package).as_posix()
        for file in package.rglob("*.py")
        if inside not in file.parents
        and re.search(rf"(from|import) napari_rln\.{fenced}\b", file.read_text(encoding="utf-8"))
    }
    assert users == {user}


def test_the_manifest_is_of_this_distribution():
    packaged = importlib.resources.files("napari_rln").joinpath("napari.yaml").read_text("utf-8")
    name = next(line for line in packaged.splitlines() if line.startswith("name:"))
    assert name.split(":")[1].strip() == importlib.metadata.metadata("napari-rln")["Name"]


def test_the_version_is_that_of_the_distribution():
    assert importlib.metadata.version("napari-rln") == napari_rln.__version__


@pytest.mark.parametrize(
    ("space", "name"),
    [(s, n) for s in SPACES for n in s.__all__ if n != "__version__"],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_what_is_offered_is_there_and_documented(space, name):
    offered = getattr(space, name)
    module = offered.__name__ if inspect.ismodule(offered) else offered.__module__
    assert module.startswith("napari_rln.")
    # A dataclass without a docstring is given its signature for one.
    assert not offered.__doc__.startswith(f"{name}(")
    assert len(offered.__doc__.splitlines()[0]) > 10
    assert name in dir(space)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.__name__)
def test_no_module_hides_behind_what_is_offered(space):
    """A submodule of an exported name would replace it as soon as it is imported."""
    modules = {path.stem for path in Path(space.__file__).parent.iterdir()}
    for name in modules & set(space.__all__):
        assert getattr(space, name) is importlib.import_module(f"{space.__name__}.{name}")


def test_a_name_that_is_not_offered_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nosuch"):
        napari_rln.nosuch  # noqa: B018
