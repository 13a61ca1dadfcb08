"""Training of the lesion classifier: which lesions, how often each, on growing crops, with which loss."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cds_bundles.classes import CLASSES
from cds_bundles.classifier_data import (
    Lesion,
    class_counts,
    draw_probabilities,
    labelled_lesions,
)
from cds_bundles.classifier_losses import LossName, class_loss
from cds_bundles.classifier_network import (
    ARCHITECTURE,
    Start,
    freeze_first_stages,
    lesion_network,
    pooled_features,
    to_network_input,
)
from cds_bundles.index import Picture, index_file, read_index, split_index, validation_part
from cds_bundles.lesion_augmentation import training_crop
from cds_bundles.lesion_boxes import found_boxes
from cds_bundles.lesion_crops import Box, Rgb, cut_square, square_around
from cds_bundles.picture_files import PictureFiles, decoded
from cds_bundles.training_loop import Plan, TrainingLoop
from cds_bundles.weights import load_half

CHECK_BATCH = 32


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the classifier learns from, and how it looks at it."""

    stages: tuple[tuple[int, int], ...]
    """(crop side in pixels, steps) in order."""
    batch: int = 32
    weight_decay: float = 0.03
    label_smoothing: float = 0.1
    loss: LossName = "cross_entropy"
    balance_power: float = 0.75
    """Classes are drawn by their count to the minus this: 0 as they come, 1 all equally often."""
    source_weights: Mapping[str, float] = field(default_factory=dict)
    """How often pictures of a source are drawn, against 1 for those not named; 0 leaves a source out."""
    context: float = 1.5
    """Side of the crop in use over the longer side of the lesion's box."""
    validation_share: float = 0.08
    """Of the training lesions, looked at on the way and not trained on; 0 for none."""

    @property
    def steps(self) -> int:
        """All steps of all stages."""
        return sum(count for _, count in self.stages)

    def size_at(self, done: float) -> int:
        """Side of the crops, in pixels, at share `done` of the run."""
        end = 0
        for size, count in self.stages:
            end += count
            if done < end / self.steps:
                return size
        return self.stages[-1][0]


def recipe(stages: Sequence[Sequence[int]], **changes: object) -> Recipe:
    """A `Recipe` from lists, as a JSON configuration holds them."""
    pairs = tuple((int(size), int(steps)) for size, steps in stages)
    return Recipe(stages=pairs, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class LesionBatches:
    """Makes the batch of any step: the same one for the same seed and step."""

    lesions: tuple[Lesion, ...]
    draws: NDArray[np.float64]
    files: PictureFiles
    recipe: Recipe
    seed: int

    def __call__(self, step: int, done: float) -> tuple[torch.Tensor, torch.Tensor]:
        """((N, 3, S, S) float32 in -1..1, columns of CLASSES (N,))."""
        rng = np.random.default_rng((self.seed, step))
        size = self.recipe.size_at(done)
        places = rng.choice(len(self.lesions), self.recipe.batch, p=self.draws)
        drawn = [self.lesions[place] for place in places]
        crops = [training_crop(self.files.rgb(item.picture.path), item.bbox, size, rng) for item in drawn]
        return to_network_input(np.stack(crops)), torch.tensor([item.label for item in drawn])


class ClassifierTask:
    """The classifier as a task of the training loop."""

    def __init__(
        self,
        network: nn.Module,
        training: tuple[Lesion, ...],
        validation: tuple[Lesion, ...],
        files: PictureFiles,
        how: Recipe,
        seed: int,
        facts: Mapping[str, str],
    ) -> None:
        self.network = network.to(memory_format=torch.channels_last)
        self._frozen = freeze_first_stages(network)
        self._training, self._validation, self._how, self._seed = training, validation, how, seed
        self._files = files
        self._loss = class_loss(how.loss, class_counts(training), how.label_smoothing)
        self._facts = dict(facts)
        self.forward: nn.Module | None = None

    def optimizer(self, rate: float) -> torch.optim.Optimizer:
        """AdamW over what is not frozen."""
        trained = [p for p in self.network.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=rate, weight_decay=self._how.weight_decay)

    def batch_maker(self) -> LesionBatches:
        """Draws and crops."""
        draws = draw_probabilities(self._training, self._how.balance_power, self._how.source_weights)
        return LesionBatches(self._training, draws, self._files, self._how, self._seed)

    def train_mode(self, network: nn.Module) -> None:
        """All but the first stages, which stay as ImageNet left them."""
        network.train()
        for module in self._frozen:
            module.eval()

    def losses(self, network: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The chosen loss of a batch."""
        crops, labels = batch
        logits = (self.forward or network)(crops)
        return {"loss": self._loss(logits.float(), labels)}

    def score(self, network: nn.Module, done: float) -> float:
        """Balanced accuracy on the validation part, one view each."""
        logits = answers(network, self._validation, self._files, self._how.size_at(done), self._how.context)[
            0
        ]
        labels = np.array([lesion.label for lesion in self._validation])
        hits = logits.argmax(axis=1) == labels
        return float(np.mean([hits[labels == column].mean() for column in np.unique(labels)]))

    def facts(self) -> dict[str, str]:
        """What the run is set up from."""
        return self._facts


@torch.inference_mode()
def answers(
    network: nn.Module, lesions: Sequence[Lesion], files: PictureFiles, size: int, context: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(N, 7) logits and (N, D) features of `lesions`, one view each, cut as in use."""
    device = next(network.parameters()).device
    head = network.get_submodule("classifier")
    rows = []
    for first in range(0, len(lesions), CHECK_BATCH):
        part = lesions[first : first + CHECK_BATCH]
        crops = np.stack(
            [crop_in_use(files.rgb(each.picture.path), each.bbox, size, context) for each in part]
        )
        features = pooled_features(network, to_network_input(crops).to(device))
        rows.append((head(features).cpu().numpy(), features.cpu().numpy()))
    logits, features_of = zip(*rows, strict=True)
    return np.concatenate(logits), np.concatenate(features_of)


def crop_in_use(rgb: Rgb, bbox: Box, size: int, context: float) -> Rgb:
    """The square (size, size, 3) of `rgb` that the product would show the network."""
    return cut_square(rgb, square_around(bbox, rgb.shape[1], rgb.shape[0], context), size)


def fingerprint(lesions: Sequence[Lesion]) -> str:
    """A digest of which lesions these are: their names, boxes and classes."""
    lines = "\n".join(f"{each.picture.isic_id} {each.bbox} {each.label}" for each in lesions)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


class NothingToLearn(ValueError):
    """The index leaves no lesion, or too few classes, on the training side."""


class ClassifierTraining:
    """One resumable run; `run()` trains as planned and exports the averaged weights."""

    def __init__(
        self,
        data_root: str,
        work_directory: str,
        weights: str,
        how: Recipe,
        plan: Plan,
        fold: int = 0,
        start: Start = "timm",
        go_on_from: str = "",
        architecture: str = ARCHITECTURE,
        compiled: bool = False,
        cache: str = "",
        cache_gigabytes: float = 6.0,
        segmentation_bundle: str = "",
    ) -> None:
        """`data_root`: an index, or the folder of index.csv; `fold`: the one that is held out.

        `work_directory` holds the run's state, `weights` is the file to export. `go_on_from`: shipped weights
        to train further instead of those that `start` names. `compiled`: through torch.compile, which is
        about a fifth faster on a CPU and needs a C++ compiler. `cache`: where decoded pictures
        are kept, by default in `work_directory`; 0 gigabytes keep none. `segmentation_bundle`: folder of the
        bundle that finds lesions without an outline; without it pictures that have none are left out.
        """
        plan.check_validation(how.validation_share)
        data, directory = Path(data_root), Path(work_directory)
        every = read_index(index_file(data))
        files = decoded(every, Path(cache) if cache else directory / "decoded", cache_gigabytes)
        boxes = self._boxes(every, files, directory, segmentation_bundle)
        training, validation = training_lesions(data, fold, how, plan.seed, files, boxes)
        network = lesion_network(start, drop_rate=0.2, drop_path_rate=0.1, architecture=architecture)
        if go_on_from:
            load_half(Path(go_on_from), network)
        facts = {"architecture": architecture, "start": start, "held_out_fold": str(fold)}
        facts |= {"loss": how.loss, "trained_on": f"{len(training)} pictures {fingerprint(training)}"}
        task = ClassifierTask(network, training, validation, files, how, plan.seed, facts)
        if compiled:
            task.forward = torch.compile(network, dynamic=False)  # type: ignore[assignment]
        self.weights = Path(weights)
        self.loop = TrainingLoop(task, plan, directory)

    @staticmethod
    def _boxes(
        every: Sequence[Picture], files: PictureFiles, directory: Path, bundle: str
    ) -> dict[Path, Box | None]:
        bare = [p for p in every if p.is_dermoscopy and p.dx in CLASSES and p.mask_path is None]
        if not bundle or not bare:
            return {}
        return found_boxes(bare, Path(bundle), files, directory / "boxes.json")

    def run(self) -> dict[str, str]:
        """Trains from the last checkpoint, or from the start, to the end; then exports."""
        return self.loop.run(self.weights)


def training_lesions(
    data_root: Path,
    fold: int,
    how: Recipe,
    seed: int,
    files: PictureFiles | None = None,
    boxes: Mapping[Path, Box | None] | None = None,
) -> tuple[tuple[Lesion, ...], tuple[Lesion, ...]]:
    """(training, validation) lesions without the held-out `fold`."""
    wanted = [p for p in split_index(data_root, fold)[0] if how.source_weights.get(p.source, 1.0) > 0]
    pictures, looked_at = validation_part(wanted, how.validation_share, seed)
    training, validation = labelled_lesions(pictures, files, boxes), labelled_lesions(looked_at, files, boxes)
    classes = int((class_counts(training) > 0).sum())
    if classes < 2:
        raise NothingToLearn(
            f"{data_root}: {len(training)} lesions of {classes} classes to train on. Needed are pictures "
            f"with one of {', '.join(CLASSES)} in the column dx and an outline in mask_path (or "
            f"segmentation_bundle, which finds them), in folds other than {fold}"
        )
    return training, validation
