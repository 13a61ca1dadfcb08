"""The classifier's crop, resize and predictor: pinned where they are part of the model, safe at the edges."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cds_bundles.classes import CLASSES, MALIGNANT_COLUMNS
from cds_bundles.classification import LesionClassifier, LesionLook
from cds_bundles.classifier_network import (
    PRETRAINED_PACKAGES,
    lesion_network,
    packaged_weights,
    to_network_input,
)
from cds_bundles.classifier_training import recipe
from cds_bundles.clinical_facts import KnownFacts
from cds_bundles.digest import shipped_bundles
from cds_bundles.index import HELD_OUT_FOLD, read_index
from cds_bundles.lesion_augmentation import training_crop
from cds_bundles.lesion_crops import cut_square, mask_box, square_around
from cds_bundles.metric_resampling import estimates
from cds_bundles.metric_shares import balanced_accuracy, share
from cds_bundles.predictors import load_predictor
from cds_bundles.resize import fit_rgb, resize_rgb
from cds_bundles.weights import load_half, save_half

BUNDLE = "dermoscopy_lesion_classification"
MAX_BYTES = 25 * 10**6
MAX_BYTES_IN_ALL = 60 * 10**6


@pytest.fixture(scope="module")
def classifier() -> LesionClassifier:
    """The shipped predictor, on one thread."""
    torch.set_num_threads(1)
    predictor = load_predictor(shipped_bundles()[BUNDLE])
    assert isinstance(predictor, LesionClassifier)
    return predictor


def rows_of(
    classifier: LesionClassifier, rgb: np.ndarray, boxes: list[tuple[int, int, int, int]]
) -> np.ndarray:
    """(N, 7) probabilities."""
    return np.array([each.probabilities for each in classifier(rgb, boxes)])


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_malignant_columns() -> None:
    assert [CLASSES[column] for column in MALIGNANT_COLUMNS] == ["akiec", "bcc", "mel"]


def area_weights(source: int, target: int) -> np.ndarray:
    """(target, source) matrix whose rows average the source pixels under each target pixel."""
    edges = np.linspace(0, source, target + 1)[:, None]
    pixels = np.arange(source)[None]
    covered = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.clip(covered, 0, None) * target / source


def test_shrinking_averages_areas() -> None:
    rgb = noise(97, 131)
    rows, columns = area_weights(97, 53), area_weights(131, 41)
    expected = np.einsum("yh,hwc,xw->yxc", rows, rgb.astype(np.float64), columns)
    assert np.abs(resize_rgb(rgb, 41, 53) - expected).max() <= 1
    assert np.abs(cv2.resize(rgb, (41, 53), interpolation=cv2.INTER_LINEAR) - expected).max() > 20


@pytest.mark.parametrize(("height", "width"), [(1, 500), (500, 1), (1, 1), (40, 3)])
def test_narrow_pictures_are_resized(height: int, width: int) -> None:
    assert resize_rgb(noise(height, width), 20, 30).shape == (30, 20, 3)
    assert max(fit_rgb(noise(height, width), 64).shape[:2]) <= 64


@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    corner=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    extent=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    context=st.floats(1.0, 2.5),
)
@settings(max_examples=60, deadline=None)
def test_a_crop_holds_the_whole_box_and_leaves_the_frame_only_when_it_must(
    width: int,
    height: int,
    corner: tuple[float, float],
    extent: tuple[float, float],
    context: float,
) -> None:
    x0, y0 = int(corner[0] * (width - 1)), int(corner[1] * (height - 1))
    x1, y1 = x0 + 1 + int(extent[0] * (width - x0 - 1)), y0 + 1 + int(extent[1] * (height - y0 - 1))
    square = square_around((x0, y0, x1, y1), width, height, context)
    assert square.x0 <= x0 and square.x0 + square.side >= x1
    assert square.y0 <= y0 and square.y0 + square.side >= y1
    if square.side <= min(width, height):
        assert 0 <= square.x0 <= width - square.side
        assert 0 <= square.y0 <= height - square.side
    crop = cut_square(np.zeros((height, width, 3), np.uint8), square, 32)
    assert crop.shape == (32, 32, 3)


def test_a_lesion_as_wide_as_the_frame_is_mirrored_not_stretched() -> None:
    rgb = np.zeros((100, 300, 3), np.uint8)
    rgb[:, 100:200] = 255
    crop = cut_square(rgb, square_around((0, 0, 300, 100), 300, 100, 1.5), 90)
    assert crop[:, 45].min() == 255
    assert crop[:, :20].max() == 0


def test_a_training_crop_is_the_same_for_the_same_seed() -> None:
    rgb = noise(256, 256)
    first, second = (training_crop(rgb, (50, 60, 200, 180), 96, np.random.default_rng(5)) for _ in range(2))
    assert first.shape == (96, 96, 3)
    assert np.array_equal(first, second)


def test_mask_box_is_tight_and_none_for_an_empty_mask() -> None:
    mask = np.zeros((20, 30), np.uint8)
    assert mask_box(mask) is None
    mask[4:9, 7:20] = 255
    assert mask_box(mask) == (7, 4, 20, 9)


def test_crops_grow_as_the_run_goes_on() -> None:
    how = recipe([[160, 100], [224, 300]])
    assert (how.steps, how.size_at(0.24), how.size_at(0.25), how.size_at(1.5)) == (400, 160, 224, 224)


def test_weights_come_back_in_single_precision(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    save_half(tmp_path / "w.safetensors", module.state_dict(), {"note": "x"})
    other = load_half(
        tmp_path / "w.safetensors", torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    )
    assert {p.dtype for p in other.parameters()} == {torch.float32}
    assert torch.allclose(next(other.parameters()), next(module.parameters()), atol=1e-3)
    with pytest.raises(RuntimeError):
        load_half(tmp_path / "w.safetensors", torch.nn.Linear(3, 2))


def test_the_shipped_weights_are_small() -> None:
    weights = list((shipped_bundles()[BUNDLE] / "models").glob("model*.safetensors"))
    sizes = [path.stat().st_size for path in weights]
    assert sizes and max(sizes) <= MAX_BYTES and sum(sizes) <= MAX_BYTES_IN_ALL


def test_several_networks_answer_as_each_alone_would(classifier: LesionClassifier) -> None:
    rgb, boxes = noise(300, 400), [(10, 20, 200, 240), (0, 0, 400, 300)]
    logits, _ = classifier.look(rgb, boxes)
    assert logits.shape == (2, len(classifier.look.members), len(CLASSES))
    for number, member in enumerate(classifier.look.members):
        alone, _ = LesionLook([member], classifier.look.context)(rgb, boxes)
        assert np.allclose(alone[:, 0], logits[:, number], atol=1e-4)
    assert len(classifier.trust.members) == len(classifier.look.members)


def test_facts_move_an_answer_and_absent_ones_do_not(classifier: LesionClassifier) -> None:
    opinions = classifier(noise(300, 400), [(10, 20, 200, 240)])
    assert classifier.informed(opinions, KnownFacts(sex="other")) == opinions
    (young,), (old,) = (classifier.informed(opinions, KnownFacts(age)) for age in (20.0, 85.0))
    assert young.facts == old.facts == ("age",)
    nv = CLASSES.index("nv")
    assert young.probabilities[nv] > opinions[0].probabilities[nv] > old.probabilities[nv]
    assert classifier.informed_operating_points.keys() == classifier.operating_points.keys()


def test_rows_are_probabilities_and_repeat(classifier: LesionClassifier) -> None:
    rgb = noise(300, 400)
    boxes = [(10, 20, 200, 240), (0, 0, 400, 300), (399, 299, 400, 300)]
    rows = rows_of(classifier, rgb, boxes)
    assert rows.shape == (3, 7)
    assert np.allclose(rows.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(rows, rows_of(classifier, rgb, boxes))
    assert np.allclose(rows[1:2], rows_of(classifier, rgb, boxes[1:2]), atol=1e-4)


def test_an_opinion_has_a_set_and_a_score(classifier: LesionClassifier) -> None:
    for opinion in classifier(noise(300, 400), [(10, 20, 200, 240), (0, 0, 400, 300)]):
        assert opinion.prediction_set and set(opinion.prediction_set) <= set(CLASSES)
        assert 0 <= opinion.ood_score <= 1


def test_no_boxes_no_rows(classifier: LesionClassifier) -> None:
    assert classifier(noise(10, 10), []) == ()


@pytest.mark.parametrize(("height", "width"), [(1, 1000), (1000, 1), (1, 1)])
def test_one_pixel_wide_pictures_get_an_answer(classifier: LesionClassifier, height: int, width: int) -> None:
    assert np.isfinite(rows_of(classifier, noise(height, width), [(0, 0, width, height)])).all()


def test_turning_the_picture_hardly_changes_the_answer(classifier: LesionClassifier) -> None:
    rgb = cv2.GaussianBlur(noise(256, 256), (0, 0), 8)
    rows = rows_of(classifier, rgb, [(40, 40, 216, 216)])
    mirrored = rows_of(classifier, np.ascontiguousarray(rgb[:, ::-1]), [(40, 40, 216, 216)])
    assert np.abs(rows - mirrored).max() < 0.02


def test_whole_frames_and_centre_crops_of_one_lesion_agree(
    classifier: LesionClassifier, derm_test_data: Path
) -> None:
    folder = derm_test_data / "ham10000_full_frame"
    agreed = []
    for path in sorted(folder.glob("*.jpg"))[:12]:
        frame, mask = read(path), cv2.imread(str(path.with_name(f"{path.stem}_segmentation.png")), 0)
        crop_path = derm_test_data / "ham10000" / "images" / path.name
        crop_mask = cv2.imread(str(derm_test_data / "ham10000" / "masks" / f"{path.stem}.png"), 0)
        boxes = mask_box(mask), mask_box(crop_mask)
        assert boxes[0] and boxes[1]
        rows = rows_of(classifier, frame, [boxes[0]]), rows_of(classifier, read(crop_path), [boxes[1]])
        agreed.append(rows[0].argmax() == rows[1].argmax())
    assert np.mean(agreed) >= 0.75


def test_held_out_lesions_are_told_apart(classifier: LesionClassifier, derm_test_data: Path) -> None:
    pictures = [p for p in read_index(derm_test_data / "index.csv") if p.fold == HELD_OUT_FOLD]
    labels, predicted = [], []
    for column, name in enumerate(CLASSES):
        for picture in [p for p in pictures if p.dx == name][:6]:
            box = mask_box(cv2.imread(str(picture.mask_path), cv2.IMREAD_GRAYSCALE))
            assert box
            labels.append(column)
            predicted.append(int(rows_of(classifier, read(picture.path), [box]).argmax()))
    assert balanced_accuracy(np.array(labels), np.array(predicted), len(CLASSES)).of_all() > 0.55


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)


def test_the_interval_draws_lesions_not_pictures() -> None:
    half = {"right": share(np.array([True, False] * 50))}
    alone = estimates(half, [str(i) for i in range(100)], "drawn")["right"]
    by_ten = estimates(half, [str(i % 2 + i // 50 * 2) for i in range(100)], "drawn")["right"]
    assert alone.value == by_ten.value == 0.5
    assert alone.interval_95 and by_ten.interval_95
    assert np.ptp(by_ten.interval_95) > np.ptp(alone.interval_95)
    assert alone.interval_95[0] < 0.5 < alone.interval_95[1]


def test_the_network_is_the_published_architecture() -> None:
    parameters = sum(p.numel() for p in lesion_network().parameters())
    assert 3.3e6 < parameters < 3.5e6


@pytest.mark.parametrize("architecture", list(PRETRAINED_PACKAGES))
def test_every_architecture_starts_from_its_packaged_weights(architecture: str) -> None:
    pytest.importorskip(PRETRAINED_PACKAGES[architecture])
    network = lesion_network("package", architecture=architecture)
    target = network.state_dict()
    body = {name: tensor for name, tensor in target.items() if not name.startswith("classifier.")}
    body = {name: tensor for name, tensor in body.items() if not name.endswith("num_batches_tracked")}
    start = packaged_weights(body, architecture)
    assert all(torch.equal(start[name], body[name]) for name in body)
    batch = to_network_input(noise(96, 96)[None])
    assert network.eval()(batch).shape == (1, len(CLASSES))
