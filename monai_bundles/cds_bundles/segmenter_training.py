"""Training of the segmenter on real, composed, drawn and empty scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import nn

from .index import HELD_OUT_FOLD, index_file, read_index
from .picture_files import decoded
from .segmenter_data import Batch, SceneBatches
from .segmenter_network import (
    LesionMaskRCNN,
    build_segmenter,
    freeze_stages,
    freeze_statistics,
    load_imagenet,
    pixels_last,
)
from .segmenter_sources import Sources, split_sources, validation_sources
from .training_loop import Plan, TrainingLoop, negative_loss
from .weights import load_half

VALIDATION_SEED = 1
"""Added to the run's seed: scenes to look at are not those that are trained on."""


@dataclass(frozen=True, slots=True)
class SegmenterRecipe:
    """What the segmenter learns from, and how it looks at it."""

    batch: int = 4
    weight_decay: float = 1e-3
    source_weights: Mapping[str, float] = field(default_factory=dict)
    """How often real frames of a source are drawn, against 1 for those not named."""
    validation_share: float = 0.05
    """Of the training pictures, looked at on the way and not trained on; 0 for none."""
    validation_batches: int = 12
    start: str = ""
    """Weights to go on from; nothing starts the body from ImageNet and the rest anew."""
    frozen_stages: int = 0
    """The body's stem and this many of its stages stay as they are: a third of the time is saved."""


class SegmenterTask:
    """The segmenter as a task of the training loop."""

    def __init__(
        self,
        training: Sources,
        validation: Sources,
        how: SegmenterRecipe,
        seed: int,
        facts: Mapping[str, str],
    ) -> None:
        network = build_segmenter()
        if how.start:
            load_half(Path(how.start), network)
        else:
            load_imagenet(network)
        if how.frozen_stages:
            freeze_stages(network, how.frozen_stages)
        pixels_last(network)
        self.network: nn.Module = network
        self._training, self._validation, self._how, self._seed = training, validation, how, seed
        self._facts = dict(facts)

    def optimizer(self, rate: float) -> torch.optim.Optimizer:
        """AdamW; the pretrained body learns at half the rate, norms and biases do not decay."""
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        learning = ((n, p) for n, p in self.network.named_parameters() if p.requires_grad)
        for name, parameter in learning:
            groups.setdefault((name.startswith("backbone.body"), parameter.ndim > 1), []).append(parameter)
        decay = self._how.weight_decay
        return torch.optim.AdamW(
            [
                {"params": own, "share": 0.5 if body else 1.0, "weight_decay": decay if matrix else 0.0}
                for (body, matrix), own in groups.items()
            ],
            lr=rate,
        )

    def batch_maker(self) -> SceneBatches:
        """Scenes of the training side."""
        return SceneBatches(self._training, self._how.batch, self._seed)

    def train_mode(self, network: nn.Module) -> None:
        """All but the statistics of ImageNet."""
        network.train()
        freeze_statistics(network)

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """The detector's losses and that of the lesion map."""
        found = cast("LesionMaskRCNN", network).losses(*batch)
        return {name.removeprefix("loss_"): loss for name, loss in found.items()}

    def score(self, network: nn.Module, done: float) -> float:
        """Minus the mean loss on scenes of the validation part, always the same ones."""
        self.train_mode(network)
        make = SceneBatches(self._validation, self._how.batch, self._seed + VALIDATION_SEED)
        score = negative_loss(self, network, make, self._how.validation_batches)
        network.eval()
        return score

    def facts(self) -> dict[str, str]:
        """What the run is set up from."""
        return self._facts


class SegmenterTraining:
    """One resumable run; `run()` trains as planned and exports the averaged weights."""

    def __init__(
        self,
        data_root: str,
        run_directory: str,
        weights: str,
        how: SegmenterRecipe,
        plan: Plan,
        fold: int = HELD_OUT_FOLD,
        cache: str = "",
        cache_gigabytes: float = 6.0,
    ) -> None:
        """`data_root`: an index, or the folder of index.csv; `fold`: the one that is held out.

        `cache`: where decoded pictures are kept, by default in `run_directory`; 0 gigabytes keep none.
        """
        plan.check_validation(how.validation_share)
        data, directory = Path(data_root), Path(run_directory)
        every = read_index(index_file(data))
        files = decoded(every, Path(cache) if cache else directory / "decoded", cache_gigabytes)
        training, _ = split_sources(data, fold, files)
        parts = validation_sources(training, how.validation_share, plan.seed)
        training, validation = (part.weighted(how.source_weights) for part in parts)
        facts = {
            "start": "weights" if how.start else "package",
            "held_out_fold": str(fold),
            "trained_on": training.fingerprint(),
        }
        task = SegmenterTask(training, validation, how, plan.seed, facts)
        self.weights = Path(weights)
        self.loop = TrainingLoop(task, plan, directory)

    def run(self) -> dict[str, str]:
        """Trains from the last checkpoint, or from the start, to the end; then exports."""
        return self.loop.run(self.weights)
