"""The compiled part of skadma; its metadata is in pyproject.toml."""

import sysconfig

from setuptools import Extension, setup

# One wheel for all of CPython from 3.11 on. Free-threaded builds know no limited API.
LIMITED = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    # Optional: without a compiler torch does its work, about 15 times slower.
    ext_modules=[
        Extension(
            "skadma.adma._kendall",
            ["skadma/adma/_kendall.c"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if LIMITED else [],
            py_limited_api=LIMITED,
            optional=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED else {},
)
