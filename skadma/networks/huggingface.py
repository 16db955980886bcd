"""Networks of transformers by the name of a repository or a folder."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..images.dataset import Preprocessing, fit_to_size

HUGGING_FACE = "hf/"

_FILTERS = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of filters."""


class HuggingFaceFeatures(nn.Module):
    """A network of transformers that returns one vector of an image.

    That is its ``pooler_output``; without one, or without weights for it, the class
    token or, of maps, the mean.
    """

    has_pooler: torch.Tensor

    def __init__(self, model: nn.Module, image_size: int, *, has_pooler: bool) -> None:
        super().__init__()
        self.model = model
        # Among the weights, so that a saved network is rebuilt with it.
        self.register_buffer("has_pooler", torch.tensor(has_pooler))
        self.pools = has_pooler  # not read in a forward pass, which could not be traced
        takes = inspect.signature(model.forward).parameters
        self.options: dict[str, Any] = {}
        own: Any = getattr(model.config, "image_size", image_size)
        if own != image_size and "interpolate_pos_encoding" in takes:
            self.options["interpolate_pos_encoding"] = True
        # ViTMAE draws an order of the patches; Hiera (sizes are lists) does not here.
        patch_size: Any = getattr(model.config, "patch_size", None)
        shuffles = "noise" in takes and isinstance(patch_size, int)
        self.shuffled_side: int | None = patch_size if shuffles else None

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.pools = bool(self.has_pooler)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of a batch of normalized images."""
        options = dict(self.options)
        if self.shuffled_side is not None:
            n = x[0, 0].numel() // self.shuffled_side**2
            options["noise"] = torch.arange(n, device=x.device).expand(len(x), n)
        outputs = self.model(pixel_values=x, **options)
        pooled = getattr(outputs, "pooler_output", None) if self.pools else None
        if pooled is None:
            hidden = outputs.last_hidden_state
            pooled = hidden[:, 0] if hidden.ndim == 3 else hidden.mean((2, 3))
        features: torch.Tensor = pooled.flatten(1)
        return features


def load_huggingface(
    name: str, weights: str | None, image_size: int | None, *, offline: bool
) -> tuple[nn.Module, Preprocessing]:
    """Build a network and the preprocessing of its image processor.

    Parameters
    ----------
    name : str
        ``"hf/"`` and the name of a repository or a folder.
    weights : "DEFAULT" or None
        None: random weights.
    image_size : int or None
        See :class:`skadma.CNNClassifier`.
    offline : bool
        Look into the folder or transformers' cache alone.

    Raises
    ------
    ValueError
        If the network takes more than images, needs code of its own, or if its image
        processor does what :class:`Preprocessing` does not.
    OSError
        If a file is missing.
    """
    transformers = importlib.import_module("transformers")
    place = name.removeprefix(HUGGING_FACE)
    options: dict[str, Any] = {"local_files_only": offline, "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(place, **options)
    missing: set[str] = set()
    if weights is None:
        model = transformers.AutoModel.from_config(config)
    else:
        model, info = transformers.AutoModel.from_pretrained(
            place,
            config=config,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
        missing = set(info["missing_keys"])
    is_part = hasattr(model, "vision_model")  # of CLIP and SigLIP
    model = model.vision_model if is_part else model
    parameters = {f"vision_model.{n}" if is_part else n: n for n in model.state_dict()}
    missing = {parameters[n] for n in missing & {*parameters}}
    if lacking := [n for n in sorted(missing) if not n.startswith("pooler.")]:
        raise ValueError(f"{name}: its weights lack {len(lacking)}, {lacking[:3]}.")
    if (takes := getattr(model, "main_input_name", "pixel_values")) != "pixel_values":
        raise ValueError(
            f"{name} is a {type(model).__name__}, whose input is {takes!r}, no images."
        )
    if hasattr(model.config, "mask_ratio"):
        model.config.mask_ratio = 0.0  # a masked autoencoder would hide patches
    processor = transformers.AutoImageProcessor.from_pretrained(place, **options)
    preprocessing = read_preprocessing(processor.to_dict())
    _check_same_pixels(name, processor, preprocessing)
    has_pooler = not missing and getattr(model, "pooler", True) is not None
    size = image_size or preprocessing.image_size
    network = HuggingFaceFeatures(model.float(), size, has_pooler=has_pooler)
    return network, preprocessing


def read_preprocessing(config: dict[str, Any]) -> Preprocessing:
    """Translate the settings of an image processor."""
    size, crop = config.get("size") or {}, config.get("crop_size") or {}
    squash = "height" in size
    resized: Any = size.get("height") or size.get("shortest_edge")
    image_size: Any = crop.get("height") if config.get("do_center_crop") else resized
    if config.get("crop_pct") and not squash:  # ConvNeXt: the size after the crop
        image_size = resized
        squash = resized >= 384
        resized = resized if squash else int(resized / config["crop_pct"])
    known = (
        resized
        and image_size
        and config.get("do_resize", True)
        and size.get("width", size.get("height")) == size.get("height")
        and crop.get("width") == crop.get("height")
        and config.get("resample", 2) in _FILTERS
        and (squash or config.get("do_center_crop") or config.get("crop_pct"))
    )
    if not known:
        raise ValueError(
            f"The image processor {config.get('image_processor_type')} resizes in a "
            f"way that is not built in: size={size}, crop_size={crop}, "
            f"resample={config.get('resample')}. Square images of one size are taken."
        )
    normalizes = config.get("do_normalize", True)
    return Preprocessing(
        image_size=image_size,
        resize_size=resized,
        interpolation=_FILTERS[config.get("resample", 2)],
        mean=tuple(config["image_mean"]) if normalizes else (0.0, 0.0, 0.0),
        std=tuple(config["image_std"]) if normalizes else (1.0, 1.0, 1.0),
        crop_mode="squash" if squash else "center",
    )


def _check_same_pixels(name: str, processor: Any, preprocessing: Preprocessing) -> None:
    """Compare the preprocessing with the processor's on a picture of waves."""
    rows, columns = np.mgrid[:300, :400][..., None] / 40
    waves = np.sin(rows + np.arange(3)) * np.cos(columns)
    pixels = np.round(127.5 * (1 + waves)).astype(np.uint8)
    theirs = processor(images=Image.fromarray(pixels), return_tensors="np")
    mean, std = (
        np.reshape(values, (3, 1, 1))
        for values in (preprocessing.mean, preprocessing.std)
    )
    ours = (fit_to_size(pixels, preprocessing).numpy() / 255 - mean) / std
    found = np.asarray(theirs["pixel_values"])[0]
    # transformers resizes by torch's kernels, which round otherwise than Pillow.
    if found.shape != ours.shape or np.abs(found - ours).max() > 3 / 255 / min(std):
        raise ValueError(
            f"The image processor of {name}, {type(processor).__name__}, prepares "
            "images in a way that is not built in: for a picture of 400 x 300 pixels "
            f"it gives {found.shape}, and the steps that its settings name give other "
            "values. Wrap the network in a callable and give image_size."
        )
