"""What the package loads, ships and offers; loading is looked at in a fresh interpreter."""

import importlib.metadata
import importlib.resources
import json
import subprocess
import sys
from pathlib import Path

import pytest

import napari_rln

ROOT = Path(__file__).resolve().parents[2]
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
        "assert 'napari_rln.cli.rld_command' in names, names; "
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


def test_the_manifest_is_of_this_distribution():
    packaged = importlib.resources.files("napari_rln").joinpath("napari.yaml").read_text("utf-8")
    name = next(line for line in packaged.splitlines() if line.startswith("name:"))
    assert name.split(":")[1].strip() == importlib.metadata.metadata("napari-rln")["Name"]


def test_the_version_is_that_of_the_distribution():
    assert importlib.metadata.version("napari-rln") == napari_rln.__version__


@pytest.mark.parametrize("name", [n for n in napari_rln.__all__ if n != "__version__"])
def test_what_is_offered_is_there_and_documented(name):
    offered = getattr(napari_rln, name)
    assert offered.__module__.startswith("napari_rln.")
    # A dataclass without a docstring is given its signature for one.
    assert not offered.__doc__.startswith(f"{name}(")
    assert len(offered.__doc__.splitlines()[0]) > 10
    assert name in dir(napari_rln)


def test_no_module_hides_behind_what_is_offered():
    """A submodule of an exported name would replace it as soon as it is imported."""
    modules = {path.stem for path in Path(napari_rln.__file__).parent.iterdir()}
    assert not modules & set(napari_rln.__all__)


def test_a_name_that_is_not_offered_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nosuch"):
        napari_rln.nosuch  # noqa: B018
