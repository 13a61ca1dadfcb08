"""Training of the gate's second network: which kind of picture is it? Seeded, resumable, weights averaged."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from cds_bundles.classifier_network import Start
from cds_bundles.quality_scene import SHORT_SIDE, SceneNetwork
from cds_bundles.quality_scene_data import Batch, SceneBatches, SceneSources
from cds_bundles.training_state import TrainingState, cosine_rate
from cds_bundles.weights import load_half, save_half

CHECKPOINT_SECONDS = 120.0
AVERAGING = 0.99
WARM_UP_STEPS = 60
WEIGHT_DECAY = 0.02
LABEL_SMOOTHING = 0.05
GRADIENT_NORM = 5.0


@dataclass(slots=True)
class SceneTraining:
    """`run()` trains, or goes on from the checkpoint in `run_directory`, and exports averaged weights."""

    data_root: str
    run_directory: str
    weights: str
    steps: int = 700
    short_side: int = SHORT_SIDE
    """Pixels of the shorter side of what it learns from."""
    batch_size: int = 24
    peak_rate: float = 1e-3
    seed: int = 41
    threads: int = 1
    start: Start = "timm"
    go_on_from: str = ""
    """A weights file that training begins with instead: a run on larger pictures after one on small ones."""

    def run(self) -> None:
        """Trains to the last step; writes a checkpoint every CHECKPOINT_SECONDS."""
        torch.set_num_threads(self.threads)
        cv2.setNumThreads(1)
        torch.manual_seed(self.seed)
        state = self._state()
        state.resume(self._checkpoint)
        saved = time.monotonic()
        with tqdm(total=self.steps, initial=state.step, file=sys.stderr, mininterval=10) as progress:
            for pictures, labels in self._batches(state.step):
                loss = self._advance(state, pictures, labels)
                progress.set_postfix(loss=f"{loss:.3f}", refresh=False)
                progress.update()
                if time.monotonic() - saved > CHECKPOINT_SECONDS:
                    state.save(self._checkpoint)
                    saved = time.monotonic()
        state.save(self._checkpoint)
        facts = {"steps": str(state.step), "seed": str(self.seed), "start": self.start}
        save_half(Path(self.weights), state.average.state_dict(), facts)

    def _state(self) -> TrainingState:
        network: nn.Module = SceneNetwork("none" if self.go_on_from else self.start)
        if self.go_on_from:
            network = load_half(Path(self.go_on_from), network)
        network.to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.peak_rate, weight_decay=WEIGHT_DECAY)
        return TrainingState.of(network, optimizer)

    def _batches(self, first: int) -> DataLoader[Batch]:
        sources = SceneSources.of(Path(self.data_root))
        batches = SceneBatches(sources, self.batch_size, self.steps, self.seed, self.short_side)
        return DataLoader(Subset(batches, range(first, self.steps)), batch_size=None, num_workers=1)

    def _advance(self, state: TrainingState, pictures: torch.Tensor, labels: torch.Tensor) -> float:
        for group in state.optimizer.param_groups:
            group["lr"] = cosine_rate(self.peak_rate, state.step, self.steps, WARM_UP_STEPS)
        logits = state.network.train()(pictures)
        loss = nn.functional.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(state.network.parameters(), GRADIENT_NORM)
        state.optimizer.step()
        state.end_step(AVERAGING)
        return float(loss.detach())

    @property
    def _checkpoint(self) -> Path:
        return Path(self.run_directory) / "scene_checkpoint.pt"
