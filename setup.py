"""The compiled part of skadma, and its page on PyPI; the rest is in pyproject.toml."""

import re
import sysconfig
import tomllib
from pathlib import Path

from setuptools import Extension, setup

# One wheel for all of CPython from 3.11 on. Free-threaded builds know no limited API.
LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")
ROOT = Path(__file__).parent


def page() -> str:
    """README.md without links that only the repository can follow.

    They lead to the address that pyproject.toml names as Source under project.urls.
    While there is none they are plain words, and a picture is what it shows.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    source = project.get("urls", {}).get("Source")

    def replaced(link: re.Match) -> str:
        mark, words, target = link.groups()
        if "://" in target:
            return link[0]
        if source:
            kind = "raw" if mark else "blob"
            return f"{mark}[{words}]({source.rstrip('/')}/{kind}/HEAD/{target})"
        return f"*{words}.*" if mark else words

    text = (ROOT / "README.md").read_text("utf-8")
    return re.sub(r"(!?)\[([^]\n]+)\]\(([^)\s]+)\)", replaced, text)


setup(
    long_description=page(),
    long_description_content_type="text/markdown",
    # Optional: without a compiler SciPy does its work, about 0.4 ms for an image.
    ext_modules=[
        Extension(
            "skadma.strategies.adma._kendall",
            ["skadma/strategies/adma/_kendall.c"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if LIMITED else [],
            py_limited_api=LIMITED,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED else {},
)
