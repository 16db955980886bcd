"""Sphinx's settings: ``sphinx-build -W -n docs build/site``. Nothing is fetched."""

import sys
import warnings
from pathlib import Path

import skadma

sys.path.insert(0, str(Path(__file__).with_name("_ext")))

project = "skadma"
author = "the skadma developers"
copyright = f"2026, {author}"  # noqa: A001
version = release = skadma.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "skadma_site",
]
exclude_patterns = ["_ext", "_templates", "examples", "**/GALLERY_HEADER.rst"]
templates_path = ["_templates"]
default_role = "code"
nitpicky = True
# numpydoc links an attribute that is a property, and properties have no entry here.
nitpick_ignore = [("py:obj", "shape")]
suppress_warnings = ["config.cache"]  # a function in autosummary_context

extlinks = {"doi": ("https://doi.org/%s", "doi:%s")}

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"skadma {release}"
html_math_renderer = "mathml"
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "skadma"},
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],  # a field would need a second row
    "header_links_before_dropdown": 6,
    "show_prev_next": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars = {"index": [], "api": [], "choose": []}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "generated/backreferences",
    "doc_module": ("skadma",),
    "reference_url": {"skadma": None},
    "reset_modules": ("matplotlib", "skadma_site.reset_for_example"),
    "min_reported_time": 1,
    "download_all_examples": False,
    "show_memory": False,
    "abort_on_example_error": True,
    "plot_gallery": "True",
}
# Of the examples: what it warns of is no part of the picture.
warnings.filterwarnings("ignore", message=".*IProgress not found.*")
