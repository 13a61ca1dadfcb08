"""Training of the gate's second network: which kind of picture is it?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cds_bundles.classifier_network import Start
from cds_bundles.index import HELD_OUT_FOLD, index_file, read_index
from cds_bundles.picture_files import decoded
from cds_bundles.quality_scene import SHORT_SIDE, SceneNetwork
from cds_bundles.quality_scene_data import Batch, SceneBatches, SceneSources
from cds_bundles.training_loop import Plan, TrainingLoop, negative_loss
from cds_bundles.weights import load_half

WEIGHT_DECAY = 0.02
LABEL_SMOOTHING = 0.05
VALIDATION_SEED = 1
"""Added to the run's seed: pictures to look at are not drawn as those that are trained on."""


@dataclass(frozen=True, slots=True)
class SceneRecipe:
    """What the network learns from, and how it looks at it."""

    short_side: int = SHORT_SIDE
    """Pixels of the shorter side of what it learns from."""
    batch: int = 24
    validation_share: float = 0.05
    """Of the training pictures, looked at on the way and not trained on; 0 for none."""
    validation_batches: int = 8


class SceneTask:
    """The network of kinds as a task of the training loop."""

    def __init__(
        self,
        network: nn.Module,
        training: SceneSources,
        validation: SceneSources,
        how: SceneRecipe,
        seed: int,
        facts: Mapping[str, str],
    ) -> None:
        self.network = network.to(memory_format=torch.channels_last)
        self._training, self._validation, self._how, self._seed = training, validation, how, seed
        self._facts = dict(facts)

    def optimizer(self, rate: float) -> torch.optim.Optimizer:
        """AdamW over everything."""
        return torch.optim.AdamW(self.network.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)

    def batch_maker(self) -> SceneBatches:
        """Pictures of every kind, of the training side."""
        return SceneBatches(self._training, self._how.batch, self._seed, self._how.short_side)

    def train_mode(self, network: nn.Module) -> None:
        """Nothing is frozen."""
        network.train()

    def losses(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Cross-entropy of the kinds."""
        pictures, labels = batch
        logits = network(pictures).float()
        return {"loss": nn.functional.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING)}

    def score(self, network: nn.Module, done: float) -> float:
        """Minus the mean loss on pictures of the validation part, always the same ones."""
        how = self._how
        make = SceneBatches(self._validation, how.batch, self._seed + VALIDATION_SEED, how.short_side)
        return negative_loss(self, network, make, how.validation_batches)

    def facts(self) -> dict[str, str]:
        """What the run is set up from."""
        return self._facts


class SceneTraining:
    """One resumable run; `run()` trains as planned and exports the averaged weights."""

    def __init__(
        self,
        data_root: str,
        run_directory: str,
        weights: str,
        how: SceneRecipe,
        plan: Plan,
        fold: int = HELD_OUT_FOLD,
        start: Start = "timm",
        go_on_from: str = "",
        cache: str = "",
        cache_gigabytes: float = 6.0,
    ) -> None:
        """`data_root`: an index, or the folder of index.csv; `fold`: the one that is held out.

        `go_on_from`: a weights file that training begins with instead of what `start` names: a run on larger
        pictures after one on small ones. `cache`: where decoded pictures are kept, by default in
        `run_directory`; 0 gigabytes keep none.
        """
        plan.check_validation(how.validation_share)
        data, directory = Path(data_root), Path(run_directory)
        every = read_index(index_file(data))
        files = decoded(every, Path(cache) if cache else directory / "decoded", cache_gigabytes)
        sources = SceneSources.of(data, fold, files)
        training, validation = sources.in_two(how.validation_share, plan.seed)
        network: nn.Module = SceneNetwork("none" if go_on_from else start)
        if go_on_from:
            load_half(Path(go_on_from), network)
        facts = {
            "start": go_on_from or start,
            "held_out_fold": str(fold),
            "short_side": str(how.short_side),
            "trained_on": training.dermoscopy.fingerprint(),
            "photographs": str(len(training.photographs)),
        }
        task = SceneTask(network, training, validation, how, plan.seed, facts)
        self.weights = Path(weights)
        self.loop = TrainingLoop(task, plan, directory, "scene-")

    def run(self) -> dict[str, str]:
        """Trains from the last checkpoint, or from the start, to the end; then exports."""
        return self.loop.run(self.weights)
