"""Training of the gate's second network: which kind of picture is it? Seeded, resumable, weights averaged."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from tqdm import tqdm

from cds_bundles.classifier_network import Start
from cds_bundles.index import SMARTPHONE, from_source, read_index
from cds_bundles.quality_scene import KINDS, SceneNetwork, to_scene_batch
from cds_bundles.scene_artefacts import Random, Rgb, change_light, through_camera
from cds_bundles.scenes import cover_with_skin
from cds_bundles.segmenter_data import (
    Sources,
    composed_scene,
    drawn_scene,
    empty_scene_of_skin,
    read_rgb,
    real_frame,
)
from cds_bundles.segmenter_training import split_sources
from cds_bundles.training_state import TrainingState, cosine_rate
from cds_bundles.weights import save_half

FRAMES = ((160, 160), (160, 208), (160, 224), (160, 240), (208, 160))
"""(height, width) that a training batch may have."""
DRAWS = (0.42, 0.2, 0.2, 0.18)
"""How often each of KINDS is drawn."""
CHECKPOINT_SECONDS = 120.0
AVERAGING = 0.99
WARM_UP_STEPS = 60
WEIGHT_DECAY = 0.02
LABEL_SMOOTHING = 0.05
GRADIENT_NORM = 5.0

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class SceneSources:
    """Training pictures of every kind."""

    dermoscopy: Sources
    photographs: tuple[Path, ...]

    @classmethod
    def of(cls, data_root: Path) -> SceneSources:
        """The training side of the folder with index.csv."""
        training, _ = split_sources(data_root)
        smartphone = from_source(read_index(data_root / "index.csv"), SMARTPHONE)
        return cls(training, tuple(each.path for each in smartphone if not each.held_out))

    def lesion(self, rng: Random, height: int, width: int) -> Rgb:
        """Dermoscopy with at least one lesion: real, composed or drawn."""
        makers: tuple[Callable[[], Rgb], ...] = (
            lambda: real_frame(rng, self.dermoscopy, height, width).rgb,
            lambda: composed_scene(rng, self.dermoscopy, height, width).rgb,
            lambda: drawn_scene(rng, height, width).rgb,
        )
        return makers[int(rng.choice(3, p=(0.65, 0.22, 0.13)))]()

    def bare_skin(self, rng: Random, height: int, width: int) -> Rgb:
        """Dermoscopy of skin with no lesion in view."""
        return empty_scene_of_skin(rng, self.dermoscopy, height, width, strength=0.5).rgb

    def photograph(self, rng: Random, height: int, width: int) -> Rgb:
        """Skin as an ordinary camera sees it, from another distance and in another light each time."""
        rgb = read_rgb(self.photographs[int(rng.integers(len(self.photographs)))])
        return _seen_again(rng, rgb, height, width)

    def foreign(self, rng: Random, height: int, width: int) -> Rgb:
        """No skin: everyday photographs, drawn shapes and noise, pictures of skin in impossible colours."""
        kind = rng.random()
        if kind < 0.5:
            paths = self.dermoscopy.nonskin
            return _seen_again(rng, read_rgb(paths[int(rng.integers(len(paths)))]), height, width)
        if kind < 0.75:
            return _shapes(rng, height, width)
        return _foreign_colours(rng, self.lesion(rng, height, width))

    def draw(self, rng: Random, kind: str, height: int, width: int) -> Rgb:
        """A picture (height, width, 3) of `kind`, one of KINDS."""
        makers: dict[str, Callable[[Random, int, int], Rgb]] = {
            "lesion": self.lesion,
            "bare_skin": self.bare_skin,
            "photograph": self.photograph,
            "foreign": self.foreign,
        }
        return makers[kind](rng, height, width)


def _seen_again(rng: Random, rgb: Rgb, height: int, width: int) -> Rgb:
    side = min(rgb.shape[:2])
    part = max(32, int(side * rng.uniform(0.35, 1.0)))
    top, left = (int(rng.integers(size - part + 1)) for size in rgb.shape[:2])
    crop = np.ascontiguousarray(rgb[top : top + part, left : left + part])
    return through_camera(rng, change_light(rng, cover_with_skin(rng, crop, height, width)))


def _shapes(rng: Random, height: int, width: int) -> Rgb:
    """A gradient or cloud in any colour with lines, discs, boxes and letters on it."""
    ends = rng.integers(0, 256, (2, 3)).astype(np.float32)
    cells = int(rng.integers(2, 24))
    clouds = cv2.resize(
        rng.random((cells, cells)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )
    canvas = np.clip(ends[0] + clouds[..., None] * (ends[1] - ends[0]), 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(0, 25))):
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        first, second = ((int(rng.integers(width)), int(rng.integers(height))) for _ in range(2))
        thick = int(rng.integers(1, 7))
        match int(rng.integers(4)):
            case 0:
                cv2.line(canvas, first, second, colour, thick)
            case 1:
                cv2.rectangle(canvas, first, second, colour, -1 if thick > 4 else thick)
            case 2:
                cv2.circle(canvas, first, int(rng.integers(2, 50)), colour, -1 if thick > 3 else thick)
            case _:
                text = "".join(chr(int(code)) for code in rng.integers(48, 91, 6))
                cv2.putText(canvas, text, first, cv2.FONT_HERSHEY_SIMPLEX, rng.uniform(0.3, 1.6), colour, 2)
    noise = rng.normal(0, rng.uniform(0, 40) if rng.random() < 0.4 else 2, canvas.shape)
    return np.asarray(np.clip(canvas + noise, 0, 255), np.uint8)


def _foreign_colours(rng: Random, rgb: Rgb) -> Rgb:
    """The picture in hues that no skin has."""
    if rng.random() < 0.4:
        return np.asarray(255 - rgb, np.uint8)
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(int) + int(rng.integers(45, 135))) % 180
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


class SceneBatches(Dataset[Batch]):
    """Batch number `step` of a run: always the same for the same seed."""

    def __init__(self, sources: SceneSources, batch: int, steps: int, seed: int) -> None:
        self.sources, self.batch, self.steps, self.seed = sources, batch, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Batch:
        """(pictures (N, 3, H, W) float32 in -1..1, places in KINDS (N,))."""
        rng = np.random.default_rng((self.seed, step))
        height, width = FRAMES[int(rng.integers(len(FRAMES)))]
        labels: NDArray[np.intp] = rng.choice(len(KINDS), self.batch, p=DRAWS)
        pictures = [self.sources.draw(rng, KINDS[label], height, width) for label in labels]
        return to_scene_batch(pictures), torch.from_numpy(labels)


@dataclass(slots=True)
class SceneTraining:
    """`run()` trains, or goes on from the checkpoint in `run_directory`, and exports averaged weights."""

    data_root: str
    run_directory: str
    weights: str
    steps: int = 700
    batch_size: int = 24
    peak_rate: float = 1e-3
    seed: int = 41
    threads: int = 1
    start: Start = "timm"

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
        network = SceneNetwork(self.start)
        network.to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.peak_rate, weight_decay=WEIGHT_DECAY)
        return TrainingState.of(network, optimizer)

    def _batches(self, first: int) -> DataLoader[Batch]:
        sources = SceneSources.of(Path(self.data_root))
        batches = SceneBatches(sources, self.batch_size, self.steps, self.seed)
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
