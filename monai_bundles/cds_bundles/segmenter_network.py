"""Mask R-CNN (He et al., ICCV 2017; torchvision's) on EfficientNet-Lite0 features with a slim pyramid."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, TypeVar, cast

import timm
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, roi_align

from .classifier_network import packaged_weights
from .second_opinion import SecondOpinion, doubted, evidence

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
"""The region head predicts MASK_SIDE x MASK_SIDE cells over its box."""
CONTOUR_SIDE = 56
"""A find's soft mask is CONTOUR_SIDE x CONTOUR_SIDE cells over its box."""
PIXEL_STRIDE = 4
"""Pixels of the network's frame per cell of the lesion map."""

MOST_CERTAIN = 4.0
"""Logits beyond this say no more about where an outline runs."""

Levels = OrderedDict[str, Tensor]


class PyramidBackbone(nn.Module):
    """EfficientNet-Lite0 and a pyramid: (N, 3, H, W) -> {"0", "1", "2"}: (N, channels, H/8.., W/8..)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        body: Any = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4))
        self.body: nn.Module = body
        self.fine_channels, *coarser = body.feature_info.channels()
        self.pyramid = FeaturePyramidNetwork(coarser, channels)
        self.out_channels = channels

    def forward(self, x: Tensor) -> tuple[Levels, Tensor]:
        """The pyramid's levels, finest first, and the body's own features (N, fine_channels, H/4, W/4)."""
        fine, *coarser = self.body(x)
        features = OrderedDict(zip(LEVELS, coarser, strict=True))
        return cast("Levels", self.pyramid(features)), fine


class LesionMap(nn.Module):
    """Lesion or skin for every cell of PIXEL_STRIDE pixels, whichever lesion it is: logits (N, 1, H/4, W/4).

    A second, finer opinion on outlines beside the region head (as the semantic branch of Chen et al., CVPR
    2019): it sees the whole picture, the region head tells neighbouring lesions apart.
    """

    def __init__(self, fine_channels: int, channels: int, width: int) -> None:
        super().__init__()
        self.coarse = nn.Conv2d(channels, width, 3, padding=1)
        self.fine = nn.Conv2d(fine_channels, width, 1)
        self.mix = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 1, 1),
        )

    def forward(self, levels: Levels, fine: Tensor) -> Tensor:
        """Logits at the fine features' resolution."""
        coarse = sum(
            functional.interpolate(self.coarse(level), fine.shape[-2:], mode="bilinear", align_corners=False)
            for level in levels.values()
        )
        return cast("Tensor", self.mix(coarse + self.fine(fine)))


class LesionMaskRCNN(MaskRCNN):  # type: ignore[misc]
    """torchvision's network with a lesion map, its stages open to a caller that resizes and pastes."""

    transform: GeneralizedRCNNTransform
    backbone: PyramidBackbone
    rpn: nn.Module
    roi_heads: nn.Module
    lesion_map: LesionMap
    second_opinion: SecondOpinion

    def losses(self, pictures: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """torchvision's five losses and that of the lesion map, in training mode."""
        images, targets = self.transform(pictures, targets)
        levels, fine = self.backbone(images.tensors)
        proposals, proposal_losses = self.rpn(images, levels, targets)
        _, region_losses = self.roi_heads(levels, proposals, images.image_sizes, targets)
        map_loss = lesion_map_loss(self.lesion_map(levels, fine), targets, images.image_sizes)
        return {**region_losses, **proposal_losses, "loss_map": map_loss}

    def find(self, picture: Tensor) -> dict[str, Tensor]:
        """Finds in one picture (3, H, W), float RGB in 0..1: boxes (N, 4), scores (N,), masks (N, 1, 56, 56).

        Boxes are x0 y0 x1 y1 in pixels of the picture; masks are soft, 0..1, each over its own box: the mean
        of the region head's logits and the lesion map's. What the second opinion takes for skin keeps half
        its score. `evidence` (N, columns) is what that opinion was formed on.
        """
        padded = self.transform.batch_images(
            [self.transform.normalize(picture)], size_divisible=LARGEST_STRIDE
        )
        images = ImageList(padded, [(picture.shape[1], picture.shape[2])])
        levels, fine = self.backbone(padded.contiguous(memory_format=torch.channels_last))
        proposals, _ = self.rpn(images, levels)
        (found,), _ = self.roi_heads(levels, proposals, images.image_sizes)
        if len(found["boxes"]):
            lesion_map = self.lesion_map(levels, fine)
            found["masks"] = fused(found["masks"], found["boxes"], lesion_map)
            found["evidence"] = evidence(list(levels.values()), lesion_map, found, images.image_sizes[0])
            found["scores"] = doubted(found["scores"], self.second_opinion(found["evidence"]))
        return cast("dict[str, Tensor]", found)


def lesion_map_loss(logits: Tensor, targets: list[dict[str, Tensor]], sizes: list[tuple[int, int]]) -> Tensor:
    """Cross-entropy and soft Dice of a lesion map (N, 1, h, w) against the union of each picture's masks.

    Cells beyond a picture's size (height, width), where the batch is padded, do not count.
    """
    losses = []
    for logit, target, (height, width) in zip(logits[:, 0], targets, sizes, strict=True):
        union = target["masks"].amax(0) if len(target["masks"]) else target["masks"].new_zeros(height, width)
        wanted = functional.avg_pool2d(union[None, :height, :width].float(), PIXEL_STRIDE, ceil_mode=True)[0]
        seen = logit[: wanted.shape[0], : wanted.shape[1]]
        entropy = functional.binary_cross_entropy_with_logits(seen, wanted)
        soft = seen.sigmoid()
        overlap = (2 * (soft * wanted).sum() + 1) / (soft.sum() + wanted.sum() + 1)
        losses.append(entropy + (1 - overlap if wanted.any() else 0.0))
    return torch.stack(losses).mean()


def fused(masks: Tensor, boxes: Tensor, lesion_map: Tensor) -> Tensor:
    """Soft masks (N, 1, 56, 56) of finds: region masks (N, 1, 28, 28) and map logits (1, 1, h, w), averaged.

    Either side's logit counts at most MOST_CERTAIN, so that neither alone decides against the other.
    """
    size = (CONTOUR_SIDE, CONTOUR_SIDE)
    seen = roi_align(lesion_map, [boxes], size, 1 / PIXEL_STRIDE, sampling_ratio=1, aligned=True)
    region = functional.interpolate(masks.logit(1e-4), size, mode="bilinear", align_corners=False)
    both = torch.stack([seen, region]).clamp(-MOST_CERTAIN, MOST_CERTAIN)
    return both.mean(0).sigmoid()


def build_segmenter(
    channels: int = 96,
    box_width: int = 512,
    mask_width: int = 128,
    mask_layers: int = 4,
    map_width: int = 64,
    proposals: int = 200,
) -> LesionMaskRCNN:
    """An untrained network for one class, lesion. Pictures are float RGB in 0..1, not resized in training."""
    backbone = PyramidBackbone(channels)
    regions = MultiScaleRoIAlign(list(LEVELS), 7, 2, canonical_scale=REGION_SCALE)
    mask_regions = MultiScaleRoIAlign(list(LEVELS), MASK_SIDE // 2, 2, canonical_scale=REGION_SCALE)
    network = LesionMaskRCNN(
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
    network.lesion_map = LesionMap(backbone.fine_channels, channels, map_width)
    network.second_opinion = SecondOpinion(channels)
    return network


class _BoxPredictor(nn.Module):
    """Two scores (background, lesion) and a box for each, from a region's vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 2)
        self.box = nn.Linear(width, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.score(x), self.box(x)


def load_imagenet(network: LesionMaskRCNN) -> None:
    """Starts the backbone from the packaged EfficientNet-Lite0 weights; training only."""
    body = network.backbone.body
    body.load_state_dict(packaged_weights(body.state_dict()))


def freeze_stages(network: LesionMaskRCNN, stages: int) -> None:
    """The body's stem and its first `stages` stages learn no more."""
    body: Any = network.backbone.body
    for module in (body.conv_stem, body.bn1, *body.blocks[:stages]):
        module.requires_grad_(False)


def freeze_statistics(network: nn.Module) -> None:
    """Keeps the running means of every batch normalisation: batches of a few pictures would spoil them."""
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm2d, BatchNormAct2d)):
            module.eval()


def pixels_last(network: _Network) -> _Network:
    """`network` in the memory layout in which CPUs convolve fastest."""
    return network.to(memory_format=torch.channels_last)
