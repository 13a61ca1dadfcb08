"""Composed scenes: masks tell the truth, lesions stay apart, seeds repeat, and no held-out lesion gets in."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cds_bundles.index import Picture
from cds_bundles.scene_artefacts import behind_aperture, dark_corners
from cds_bundles.scenes import (
    CROWDED,
    Scene,
    bounding_box,
    compose,
    cover_with_skin,
    cut_fragment,
    drawn_skin,
    is_even,
    lesion_free_part,
    paste,
    through_dermatoscope,
)
from cds_bundles.segmenter_data import (
    FRAMES,
    SceneBatches,
    as_whole_frame,
    blotched,
    empty_scene,
    to_target,
)
from cds_bundles.segmenter_sources import Sources, parent_of, sources, without_duplicates

SKIN = (222, 178, 150)
PIGMENT = (96, 60, 44)


def a_lesion(
    side: int = 120, radius: int = 25, skin: tuple[int, int, int] = SKIN
) -> tuple[np.ndarray, np.ndarray]:
    """A picture with one dark disc in its middle, and the disc's mask."""
    mask = np.zeros((side, side), np.uint8)
    cv2.circle(mask, (side // 2, side // 2), radius, 1, -1)
    rgb = np.full((side, side, 3), skin, np.uint8)
    rgb[mask > 0] = PIGMENT
    return rgb, mask.astype(bool)


def a_picture(path: Path, source: str, isic_id: str, fold: int | None = None, seed: int = 0) -> Picture:
    """A row of an index, with its picture and mask on disk."""
    rgb, mask = a_lesion(side=200)
    noise = np.random.default_rng(seed).integers(-12, 12, (8, 8, 3))
    rough = cv2.resize(noise.astype(np.float32), (200, 200))
    picture, outline = path / f"{isic_id}.png", path / f"{isic_id}_mask.png"
    cv2.imwrite(str(picture), np.clip(rgb + rough, 0, 255).astype(np.uint8))
    cv2.imwrite(str(outline), mask.astype(np.uint8) * 255)
    return Picture(picture, source, isic_id, isic_id, "", "nv", outline, "none", fold, 200, 200, 0.05, False)


@pytest.fixture
def one_side(tmp_path: Path) -> Sources:
    """Sources of a training side with two lesions and one patch of skin."""
    pictures = [a_picture(tmp_path, "isic2018_task1", f"ISIC_{n}", seed=n) for n in range(2)]
    skin = tmp_path / "task1__ISIC_9.png"
    cv2.imwrite(str(skin), np.full((200, 210, 3), 180, np.uint8))
    return Sources((tuple(pictures), tuple(pictures)), (skin,), (skin,))


def test_a_bounding_box_is_tight_and_its_end_exclusive() -> None:
    mask = np.zeros((20, 30), bool)
    mask[4:9, 11:17] = True
    assert bounding_box(mask) == (11, 4, 17, 9)
    assert bounding_box(np.zeros((5, 5), bool)) == (0, 0, 0, 0)


def test_a_lesion_that_the_frame_cuts_off_makes_no_fragment() -> None:
    rgb, mask = a_lesion()
    assert cut_fragment(rgb, mask) is not None
    assert cut_fragment(rgb[:, 50:], mask[:, 50:]) is None


def test_a_lesion_in_two_parts_or_hardly_visible_makes_no_fragment() -> None:
    rgb, mask = a_lesion()
    pale = np.where(mask[..., None], np.array(SKIN) - 8, rgb).astype(np.uint8)
    assert cut_fragment(pale, mask) is None
    mask[:, 60] = False
    assert cut_fragment(rgb, mask) is None


def test_skin_with_another_spot_is_not_taken_for_lesion_free() -> None:
    rgb, _ = a_lesion(side=200, radius=20)
    assert is_even(rgb[:60])
    cv2.circle(rgb, (100, 20), 9, PIGMENT, -1)
    assert not is_even(rgb[:60])
    hairy = np.full((60, 200, 3), SKIN, np.uint8)
    cv2.line(hairy, (0, 10), (199, 50), (40, 30, 20), 1)
    assert is_even(hairy)


def test_a_fragment_knows_the_skin_round_the_lesion() -> None:
    fragment = cut_fragment(*a_lesion())
    assert fragment is not None
    assert np.abs(fragment.skin - (np.array(SKIN) + 1)).max() < 1


def test_skin_beside_a_lesion_holds_none_of_it() -> None:
    rgb, mask = a_lesion(side=200, radius=20)
    strip = lesion_free_part(rgb, mask)
    assert strip is not None
    assert min(strip.shape[:2]) >= 56
    assert (strip == SKIN).all()
    assert lesion_free_part(*a_lesion(side=120, radius=50)) is None


@pytest.mark.parametrize("shape", [(56, 300), (200, 200), (500, 90)])
def test_skin_covers_any_frame(shape: tuple[int, int]) -> None:
    skin = np.full((*shape, 3), SKIN, np.uint8)
    covered = cover_with_skin(np.random.default_rng(3), skin, 240, 320)
    assert covered.shape == (240, 320, 3)
    assert (covered == SKIN).all()


def test_a_pasted_lesion_takes_the_tone_of_the_skin_below() -> None:
    fragment = cut_fragment(*a_lesion(skin=(240, 120, 120)))
    assert fragment is not None
    skin = np.full((240, 320, 3), SKIN, np.uint8)
    scene = paste(np.random.default_rng(1), skin, fragment, (160.0, 120.0), 80.0)
    assert scene is not None
    (mask,) = scene.masks
    x0, y0, x1, y1 = bounding_box(mask)
    assert abs(max(x1 - x0, y1 - y0) - 80) <= 3
    outside = ~cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    assert np.abs(scene.rgb[outside].astype(int) - SKIN).max() <= 6
    assert scene.rgb[mask].mean() < 0.6 * np.mean(SKIN)


def test_a_lesion_mostly_out_of_view_is_not_placed() -> None:
    fragment = cut_fragment(*a_lesion())
    assert fragment is not None
    skin = np.full((240, 320, 3), SKIN, np.uint8)
    assert paste(np.random.default_rng(1), skin, fragment, (-20.0, 120.0), 80.0) is None


@pytest.mark.parametrize("seed", range(12))
def test_lesions_of_a_scene_stay_apart_and_in_view(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = compose(rng, drawn_skin(rng, 240, 320), 1 + seed % 6, None)
    assert 1 <= len(scene.masks) <= 1 + seed % 6
    assert np.sum(scene.masks, axis=0).max() == 1
    assert all(mask.sum() > 50 for mask in scene.masks)


def test_a_crowded_scene_has_small_lesions_neighbours_and_lesions_at_the_border() -> None:
    sides, nearest, cut = [], [], 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        scene = compose(rng, drawn_skin(rng, 240, 320), 5, None, CROWDED)
        assert np.sum(scene.masks, axis=0).max() == 1
        boxes = [bounding_box(mask) for mask in scene.masks]
        sides += [max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes]
        cut += sum(x0 == 0 or y0 == 0 or x1 == 320 or y1 == 240 for x0, y0, x1, y1 in boxes)
        others = [(~mask).astype(np.uint8) for mask in scene.masks]
        gaps = [cv2.distanceTransform(each, cv2.DIST_L2, 5) for each in others]
        nearest += [
            gap[mask].min() for gap, mask in zip(gaps, (*scene.masks[1:], scene.masks[0]), strict=True)
        ]
    assert min(sides) < 0.1 * 240
    assert max(sides) < 0.5 * 240
    assert min(nearest) < 12
    assert cut > 0


def test_blotched_skin_is_no_darker_on_the_whole_and_shows_no_lesion() -> None:
    skin = np.full((240, 320, 3), SKIN, np.uint8)
    spread = []
    for seed in range(8):
        rgb = blotched(np.random.default_rng(seed), skin)
        assert rgb.shape == skin.shape
        assert abs(float(rgb.mean()) - float(skin.mean())) < 12
        spread.append(float(rgb.std(axis=(0, 1)).max()))
    assert max(spread) > 3


def test_empty_scenes_have_no_mask(one_side: Sources) -> None:
    scenes = [empty_scene(np.random.default_rng(seed), one_side, 240, 320) for seed in range(12)]
    assert all(scene.masks == () and scene.rgb.shape == (240, 320, 3) for scene in scenes)
    assert all(scene.rgb.dtype == np.uint8 for scene in scenes)


def test_what_an_aperture_hides_is_no_longer_a_lesion() -> None:
    rng = np.random.default_rng(0)
    visible = dark_corners(rng, 240, 320)
    assert visible[120, 160] == 1.0
    assert visible[0, 0] == 0.0
    shown = behind_aperture(rng, np.full((240, 320, 3), 200, np.uint8), visible)
    assert shown[0, 0].max() <= 30
    assert shown[120, 160].min() == 200


@pytest.mark.parametrize("seed", range(20))
def test_a_dermatoscope_changes_pixels_but_keeps_size_and_type(seed: int) -> None:
    rgb, mask = a_lesion(side=240)
    scene = through_dermatoscope(np.random.default_rng(seed), Scene(rgb, (mask,)), strength=3.0)
    assert scene.rgb.shape == rgb.shape
    assert scene.rgb.dtype == np.uint8
    assert all(np.array_equal(kept & mask, kept) for kept in scene.masks)


@pytest.mark.parametrize("seed", range(20))
def test_a_whole_frame_shows_the_lesion_once(seed: int) -> None:
    rgb, mask = a_lesion(side=256, radius=60)
    scene = as_whole_frame(np.random.default_rng(seed), rgb, mask, 240, 320)
    dark = scene.rgb.astype(int).sum(axis=2) < (sum(SKIN) + sum(PIGMENT)) / 2
    count, _ = cv2.connectedComponents(dark.astype(np.uint8))
    assert count == 2
    assert (dark == scene.masks[0]).mean() > 0.99


def test_a_step_of_a_run_is_the_same_every_time(one_side: Sources) -> None:
    batches = SceneBatches(one_side, batch_size=2, seed=5)
    again = SceneBatches(one_side, batch_size=2, seed=5)
    for step in (0, 7):
        (pictures, targets), (same, _) = batches(step), again(step)
        assert tuple(pictures[0].shape[1:]) in FRAMES
        assert all(bool((a == b).all()) for a, b in zip(pictures, same, strict=True))
        assert all(len(t["boxes"]) == len(t["masks"]) == len(t["labels"]) for t in targets)


def test_a_target_without_a_lesion_has_empty_tensors() -> None:
    target = to_target(Scene(np.zeros((24, 32, 3), np.uint8), ()))
    assert target["boxes"].shape == (0, 4)
    assert target["masks"].shape == (0, 24, 32)


def test_background_skin_goes_where_its_picture_goes(tmp_path: Path) -> None:
    assert parent_of(Path("task1_512__ISIC_0000012.jpg")) == "ISIC_0000012"
    trained = a_picture(tmp_path, "isic2018_task1", "ISIC_1", seed=1)
    held_out = a_picture(tmp_path, "isic2018_task1", "ISIC_2", seed=2)
    skins = [a_picture(tmp_path, "background_skin", f"task1_512__ISIC_{n}", seed=n) for n in (1, 2)]
    training, testing = sources((trained,), (held_out,), (trained, held_out, *skins))
    assert [path.stem for path in training.skin] == ["task1_512__ISIC_1"]
    assert [path.stem for path in testing.skin] == ["task1_512__ISIC_2"]


def test_a_held_out_picture_under_another_name_leaves_the_training_side(tmp_path: Path) -> None:
    held_out = a_picture(tmp_path, "isic2018_task1", "ISIC_1", seed=1)
    copy = a_picture(tmp_path, "ham10000", "ISIC_2", fold=3, seed=1)
    other = a_picture(tmp_path, "ham10000", "ISIC_3", fold=3, seed=4)
    rotated = cv2.rotate(cv2.imread(str(other.path)), cv2.ROTATE_180)
    cv2.imwrite(str(other.path), rotated)
    assert copy not in without_duplicates((copy, other), (held_out,))
