"""Mask R-CNN (He et al., ICCV 2017; torchvision's) on EfficientNet-Lite0 features with a slim pyramid."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any, TypeVar, cast

import timm
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign

_Network = TypeVar("_Network", bound=nn.Module)

LEVELS = ("0", "1", "2")
"""Pyramid levels, strides 8, 16 and 32."""
ANCHOR_SIDES = ((22, 32, 46), (64, 88, 120), (160, 210, 275))
"""Pixels of the network's frame, per level."""
ASPECT_RATIOS = (0.6, 1.0, 1.7)
REGION_SCALE = 128
"""Side of a region that is read from the middle level."""
LARGEST_STRIDE = 32
"""A picture is padded to a multiple of this, for the coarsest level to fit."""
MASK_SIDE = 28
"""A predicted mask is MASK_SIDE x MASK_SIDE cells over its box."""


class PyramidBackbone(nn.Module):
    """EfficientNet-Lite0 and a pyramid: (N, 3, H, W) -> {"0", "1", "2"}: (N, channels, H/8.., W/8..)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        body: Any = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(2, 3, 4))
        self.body: nn.Module = body
        self.pyramid = FeaturePyramidNetwork(body.feature_info.channels(), channels)
        self.out_channels = channels

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        """The pyramid's levels, finest first."""
        features = OrderedDict(zip(LEVELS, self.body(x), strict=True))
        return cast("OrderedDict[str, Tensor]", self.pyramid(features))


class LesionMaskRCNN(MaskRCNN):  # type: ignore[misc]
    """torchvision's network, with its stages open to a caller that resizes and pastes by itself."""

    transform: GeneralizedRCNNTransform
    backbone: PyramidBackbone
    rpn: nn.Module
    roi_heads: nn.Module

    def find(self, picture: Tensor) -> dict[str, Tensor]:
        """Finds in one picture (3, H, W), float RGB in 0..1: boxes (N, 4), scores (N,), masks (N, 1, 28, 28).

        Boxes are x0 y0 x1 y1 in pixels of the picture; masks are soft, 0..1, each over its own box.
        """
        padded = self.transform.batch_images(
            [self.transform.normalize(picture)], size_divisible=LARGEST_STRIDE
        )
        images = ImageList(padded, [(picture.shape[1], picture.shape[2])])
        features = self.backbone(padded.contiguous(memory_format=torch.channels_last))
        proposals, _ = self.rpn(images, features)
        (found,), _ = self.roi_heads(features, proposals, images.image_sizes)
        return cast("dict[str, Tensor]", found)


def build_segmenter(
    channels: int = 96,
    box_width: int = 512,
    mask_width: int = 128,
    mask_layers: int = 4,
    proposals: int = 200,
) -> LesionMaskRCNN:
    """An untrained network for one class, lesion. Pictures are float RGB in 0..1, not resized in training."""
    backbone = PyramidBackbone(channels)
    regions = MultiScaleRoIAlign(list(LEVELS), 7, 2, canonical_scale=REGION_SCALE)
    mask_regions = MultiScaleRoIAlign(list(LEVELS), MASK_SIDE // 2, 2, canonical_scale=REGION_SCALE)
    return LesionMaskRCNN(
        backbone,
        num_classes=None,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        _skip_resize=True,
        rpn_anchor_generator=AnchorGenerator(ANCHOR_SIDES, (ASPECT_RATIOS,) * len(LEVELS)),
        rpn_pre_nms_top_n_train=4 * proposals,
        rpn_pre_nms_top_n_test=4 * proposals,
        rpn_post_nms_top_n_train=proposals,
        rpn_post_nms_top_n_test=proposals,
        rpn_batch_size_per_image=128,
        box_roi_pool=regions,
        box_head=TwoMLPHead(channels * 49, box_width),
        box_predictor=_BoxPredictor(box_width),
        box_batch_size_per_image=64,
        box_detections_per_img=40,
        mask_roi_pool=mask_regions,
        mask_head=MaskRCNNHeads(channels, [mask_width] * mask_layers, dilation=1),
        mask_predictor=MaskRCNNPredictor(mask_width, mask_width, num_classes=2),
    )


class _BoxPredictor(nn.Module):
    """Two scores (background, lesion) and a box for each, from a region's vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 2)
        self.box = nn.Linear(width, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.score(x), self.box(x)


def load_imagenet(network: LesionMaskRCNN, weights: Path) -> None:
    """Starts the backbone from a published EfficientNet-Lite0 checkpoint; training only.

    Its tensors have other names but stand in timm's order: shapes and the last parts of names confirm it.
    """
    state = torch.load(weights, map_location="cpu", weights_only=True)
    names = list(timm.create_model("tf_efficientnet_lite0").state_dict())
    pairs = list(zip(names, state.items(), strict=True))
    if any(ours.rpartition(".")[2] != theirs.rpartition(".")[2] for ours, (theirs, _) in pairs):
        raise ValueError(f"{weights} is not an EfficientNet-Lite0 checkpoint in the expected order")
    renamed = {ours: tensor for ours, (_, tensor) in pairs}
    body = network.backbone.body
    body.load_state_dict({name: renamed[name] for name in body.state_dict()})


def freeze_statistics(network: nn.Module) -> None:
    """Keeps the running means of every batch normalisation: batches of a few pictures would spoil them."""
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, BatchNormAct2d)):
            module.eval()


def pixels_last(network: _Network) -> _Network:
    """`network` in the memory layout in which CPUs convolve fastest."""
    return network.to(memory_format=torch.channels_last)
