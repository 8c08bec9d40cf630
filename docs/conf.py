"""Sphinx configuration: guides from ``docs``, pages from the root, API, executed examples."""

import inspect
import re
import shutil
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

from numpy.typing import ArrayLike
from sphinx.application import Sphinx
from sphinx.util.typing import stringify_annotation
from sphinx_gallery.scrapers import figure_rst

import napari_rln
from napari_rln.cli import app as cli
from napari_rln.core.volume import FloatArray

_DOCS = Path(__file__).parent
_ROOT = _DOCS.parent
_BUILD = _DOCS / "_build"  # generated, and ignored by git
_REPOSITORY = "https://github.com/napari-rln/napari-rln"

project = "napari-rln"
author = project_copyright = "the napari-rln developers"
release = napari_rln.__version__
version = release.split("+")[0]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build/doctrees", "_build/html", "_build/examples", "**/*.py"]

# Guides
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]  # the gallery's functions are in its settings

# API
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
autosummary_generate = False
napoleon_google_docstring = False
napoleon_use_rtype = False
add_module_names = False

# Looks
html_theme = "furo"
html_title = f"napari-rln {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = False
html_theme_options = {
    "source_repository": f"{_REPOSITORY}/",
    "source_branch": "main",
    "source_directory": "docs/",
    "footer_icons": [],
}
copybutton_exclude = ".linenos, .gp, .go"


def _new_figures(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Show the PNG files that an example has written since its last block."""
    shown = block_vars["example_globals"].setdefault("__shown__", set())
    images = []
    for written in sorted(Path(block_vars["src_file"]).parent.glob("*.png")):
        if written not in shown:
            shown.add(written)
            images.append(next(block_vars["image_path_iterator"]))
            shutil.move(written, images[-1])
    return figure_rst(images, gallery_conf["src_dir"])


# An example runs in its folder and writes there, hence copies. Unchanged ones are not run again.
sphinx_gallery_conf = {
    "examples_dirs": str(_BUILD / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "image_scrapers": (_new_figures,),
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "abort_on_example_error": True,
    "plot_gallery": "True",
}


def _copy_examples() -> None:
    """Copy the scripts of ``examples`` to where the gallery runs them."""
    target = _BUILD / "examples"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(_ROOT / "examples", target, ignore=shutil.ignore_patterns("__pycache__"))


def _resolve_links(text: str, folder: str) -> str:
    """Point the links of a page from the root at pages of this site, or else at the repository."""

    def point(match: re.Match[str]) -> str:
        target = match[1]
        if target.startswith(("http", "#")):
            return match[0]
        path = (Path(folder) / target).as_posix()
        if path.startswith("docs/"):
            return f"]({path.removeprefix('docs/')})"
        pages = {source: name for name, source in _PAGES.items()}
        page = pages.get(path.partition("#")[0])
        return f"]({page}.md)" if page else f"]({_REPOSITORY}/blob/main/{path})"

    return re.sub(r"\]\(([^)]+)\)", point, text)


# Pages whose text is elsewhere in the repository.
_PAGES = {
    "index": "README.md",
    "benchmarks": "benchmarks/RESULTS.md",
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
}


def _read_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Put the text from elsewhere before the content of the page."""
    if page in _PAGES:
        path = _ROOT / _PAGES[page]
        app.env.note_dependency(str(path))
        folder = Path(_PAGES[page]).parent.as_posix()
        source[0] = _resolve_links(path.read_text("utf-8"), folder) + "\n\n" + source[0]
    elif page == "command-line":
        text = cli.generate_docs(output_format="markdown")
        _, _, listed = text.partition("**Commands**:")  # before that, the same as a tree
        source[0] += "\n" + listed
    else:
        source[0] = source[0].replace("](../benchmarks/RESULTS.md", "](benchmarks.md")


def _directive(name: str) -> str:
    """Return the directive that documents one name of the package."""
    offered = getattr(napari_rln, name)
    if isinstance(offered, ModuleType):
        return f".. automodule:: {offered.__name__}\n   :members:\n"
    if inspect.isclass(offered):
        bases = "" if issubclass(offered, BaseException) else "   :members:\n"
        return f".. autoclass:: napari_rln.{name}\n{bases}"
    return f".. autofunction:: napari_rln.{name}\n"


def _write_api() -> None:
    """Write a page for each package with public names, and their table of contents."""
    parts = defaultdict(list)
    for name in sorted(napari_rln.__all__, key=str.lower):
        offered = getattr(napari_rln, name)
        if not name.startswith("__"):
            parts[getattr(offered, "__module__", offered.__name__).split(".")[1]].append(name)
    folder = _DOCS / "api"
    folder.mkdir(parents=True, exist_ok=True)
    texts = {}
    for part, names in parts.items():
        about = inspect.getdoc(__import__(f"napari_rln.{part}", fromlist=["_"])) or ""
        table = "".join(f"   {name}\n" for name in names)
        texts[part] = "\n".join(
            [
                f"{part}\n{'=' * len(part)}\n",
                about.splitlines()[0] if about else "",
                "\n.. currentmodule:: napari_rln\n",
                f".. autosummary::\n   :nosignatures:\n\n{table}",
                *map(_directive, names),
            ]
        )
    listed = "".join(f"   {part}\n" for part in sorted(parts))
    texts["index"] = (
        "Python\n======\n\n"
        "Public names of ``import napari_rln as rln``, by package.\n\n"
        f".. toctree::\n   :maxdepth: 2\n\n{listed}"
    )
    for page in folder.glob("*.rst"):
        if page.stem not in texts:
            page.unlink()
    for page, text in texts.items():
        path = folder / f"{page}.rst"
        # Sphinx reads again what is newer than its own copy.
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def _shorten_signature(
    app: Sphinx,
    what: str,
    name: str,
    obj: object,
    options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """Write the names of array types instead of their definitions."""
    for text, alias in _ALIASES.items():
        signature = signature and signature.replace(text, alias)
        returns = returns and returns.replace(text, alias)
    return signature, returns


_ALIASES = {
    stringify_annotation(alias, "smart"): name
    for name, alias in (("ArrayLike", ArrayLike), ("FloatArray", FloatArray))
}
_copy_examples()
_write_api()


def setup(app: Sphinx) -> None:
    """Register the callbacks of the build."""
    app.connect("source-read", _read_page)
    app.connect("autodoc-process-signature", _shorten_signature)
