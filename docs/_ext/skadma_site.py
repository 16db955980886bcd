"""What the site needs beyond the extensions it uses: four small things.

- Formulas become MathML, which browsers draw and screen readers read without a script,
  by docutils' own converter.
- Names of other projects (``sklearn.pipeline.Pipeline``) become links by their sites'
  rules, if the name exists in the installed release. So no inventory is downloaded.
- Empty headings of tables become plain cells, as screen readers announce headings.
- Links out of ``docs/``, which work in the repository, go to the page that includes the
  file.
"""

from __future__ import annotations

import inspect
import re
from functools import cached_property
from importlib import import_module

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

PAGES = {
    "../benchmarks/README.md": "reproduce.md",
    "../CHANGELOG.md": "changelog.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../SECURITY.md": "security.md",
}
SITES = {
    "sklearn": "https://scikit-learn.org/stable/modules/generated/{name}.html",
    "numpy": "https://numpy.org/doc/stable/reference/generated/{name}.html",
    "torch": "https://docs.pytorch.org/docs/stable/generated/{name}.html",
    "matplotlib": "https://matplotlib.org/stable/api/_as_gen/{name}.html",
    "scipy": "https://docs.scipy.org/doc/scipy/reference/generated/{name}.html",
}


def mathml(translator, node, *, block: bool) -> None:
    r"""Write a formula; `\Big` and its kin are left to the browser."""
    tex = re.sub(r"\\[Bb]igg?[lr]?(?=\W)", "", node.astext())
    tex = re.sub(r"\\dots\b", r"\\ldots", tex)
    translator.body.append(tex2mathml(tex, as_block=block))
    raise nodes.SkipNode


def visit_inline(translator, node):
    """Write a formula within a line."""
    mathml(translator, node, block=False)


def visit_block(translator, node):
    """Write a formula of its own."""
    mathml(translator, node, block=True)


def exists(name: str) -> bool:
    """Tell whether a dotted name can be imported."""
    module, *rest = name.split(".")
    found = import_module(module)
    for i, part in enumerate(rest):
        if not hasattr(found, part):
            try:
                import_module(".".join([module, *rest[: i + 1]]))
            except ImportError:
                return False
        found = getattr(found, part)
    return True


def elsewhere(app, env, node, content):
    """Link a name of another project to its site."""
    name = node.get("reftarget", "")
    site = SITES.get(name.split(".")[0])
    if site is None or not exists(name):
        return None
    link = nodes.reference("", "", internal=False, refuri=site.format(name=name))
    link.append(content)
    return link


def own_methods(name: str) -> list[str]:
    """List the public methods of a class that skadma wrote, in their order."""
    module, _, name = name.rpartition(".")
    cls = getattr(import_module(module), name)
    names: dict[str, None] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("skadma"):
            names.update(dict.fromkeys(vars(base)))
    return [
        n
        for n in names
        if not n.startswith("_")
        and not re.fullmatch("set_.+_request", n)  # scikit-learn makes these
        and not isinstance(inspect.getattr_static(cls, n), cached_property)
        and inspect.isroutine(getattr(cls, n))
    ]


def links_within(app, docname, source):
    """Send links to included files to the pages that include them."""
    for file, page in PAGES.items():
        source[0] = source[0].replace(f"]({file}", f"]({page}")


def links_of_included(app, relative_path, parent, content):
    """Mend links in files from the repository's root, as they are included."""
    content[0] = re.sub(r"\]\((?:\.\./)?docs/", "](", content[0])


def reset_for_example(gallery_conf, fname):
    """Give each example a process cache of its own, and equal random numbers."""
    import numpy as np
    import torch

    from skadma.features.cache import process_cache

    process_cache.clear()
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


def without_empty_headings(app, pagename, templatename, context, doctree):
    """Make empty headings of tables plain cells: a screen reader announces headings."""
    empty = r'<th class="head[^"]*">(?:<p>\s*</p>)?</th>'
    context["body"] = re.sub(empty, "<td></td>", context.get("body", ""))


def setup(app):
    """Register them."""
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(visit_inline, None),
        block_renderers=(visit_block, None),
    )
    app.config.autosummary_context = {"own_methods": own_methods}
    app.connect("missing-reference", elsewhere)
    app.connect("source-read", links_within)
    app.connect("include-read", links_of_included)
    app.connect("html-page-context", without_empty_headings)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
