"""The version, apart from the package for what the package imports."""

__version__ = "0.1.0"
