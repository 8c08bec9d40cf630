"""The examples and the README's Python run as they stand; what the documents show is there."""

import ast
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import phantoms
import pytest

import napari_rln
from napari_rln.cli import app
from napari_rln.core.volume import Volume
from napari_rln.io.volumes import read, write
from napari_rln.train import validation

_ROOT = Path(__file__).resolve().parents[2]
_EXAMPLES = sorted((_ROOT / "examples").glob("*.py"))
_DOCUMENTS = [_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md"))]


def test_there_are_examples():
    assert len(_EXAMPLES) >= 2


@pytest.mark.parametrize("script", _EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(validation, "_ITERATIONS", (2, 4))  # a short search for the best RLD
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out
    written = list(tmp_path.glob("*.ome.tif"))
    assert written
    assert read(written[0]).record is not None


def test_the_readmes_python_runs(tmp_path, monkeypatch, capsys):
    code = re.findall(r"```python\n(.*?)```", (_ROOT / "README.md").read_text(), re.DOTALL)
    assert len(code) == 1
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).poisson(phantoms.spots((9, 32, 32)) + 10)
    write(Volume.from_array(image, (0.3, 0.13, 0.13)), "nucleus.tif")
    exec(compile(code[0], "README.md", "exec"), {})
    assert "'iterations': 20" in capsys.readouterr().out
    assert Path("nucleus-rln.ome.tif").exists()
    assert Path("nucleus.png").exists()


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: path.stem)
def test_the_python_of_the_documents_uses_what_is_offered(document):
    for code in re.findall(r"```python\n(.*?)```", document.read_text(), re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("napari_rln"):
                names = ", ".join(alias.name for alias in node.names)
                exec(f"from {node.module} import {names}", {})  # finds a submodule too
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("rln."):
                eval(ast.unparse(node), {"rln": napari_rln})


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: path.stem)
def test_the_lines_of_the_documents_are_commands(document):
    lines = re.findall(r"^ *(napari-rln [-\w]+ .*)$", document.read_text(), re.MULTILINE)
    assert lines or document.stem not in ("README", "psf", "deconvolution", "rln", "scale", "study")
    for line in lines:
        _, *words = shlex.split(line, comments=True)
        app.parse_args(words, print_error=False, exit_on_error=False)
