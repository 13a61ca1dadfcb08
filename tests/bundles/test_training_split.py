"""Who is trained on, looked at and held out follows from the index, and nobody is on two sides."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_index import HELD_OUT, OTHER, SAME_LESION, TASK1_TEST, ids, written
from tiny_collection import index_of

from cds_bundles.classifier_data import class_counts, draw_probabilities, training_and_held_out
from cds_bundles.classifier_training import NothingToLearn, recipe, training_lesions
from cds_bundles.index import (
    Picture,
    check_no_leak,
    index_file,
    read_index,
    reported,
    split,
    split_index,
    validation_part,
)
from cds_bundles.segmenter_sources import NothingOutlined, split_sources, validation_sources


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return index_of(tmp_path_factory.mktemp("own"), lesions=45)


@pytest.mark.parametrize("fold", range(5))
def test_any_fold_can_be_held_out_of_any_index(own: Path, fold: int) -> None:
    training, held_out = split_index(own, fold)
    assert {picture.fold for picture in held_out} == {fold}
    assert {picture.fold for picture in training} == set(range(5)) - {fold}
    assert len(training) + len(held_out) == len(read_index(own))
    looked_at = training_lesions(own, fold, recipe([[32, 4]], validation_share=0.2), seed=3)
    names = [{each.picture.patient_id for each in side} for side in looked_at]
    names.append({picture.patient_id for picture in held_out})
    assert all(names) and not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])


def test_a_split_column_does_instead_of_folds(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text(
        "path,dx,lesion_id,mask_path,split\na.png,nv,1,a_m.png,train\nb.png,mel,2,b_m.png,test\n"
        "c.png,mel,2,c_m.png,train\n"
    )
    training, held_out = split_index(tmp_path / "i.csv")
    assert [picture.lesion_id for picture in training] == ["1"]
    assert [picture.path.name for picture in held_out] == ["b.png"]
    assert index_file(tmp_path) == tmp_path / "index.csv"


def test_names_of_different_kinds_do_not_meet(tmp_path: Path) -> None:
    (tmp_path / "i.csv").write_text(
        "path,dx,lesion_id,patient_id,fold\na.png,nv,7,1,0\nb.png,mel,1,7,1\nc.png,nv,3,1,2\n"
    )
    training, held_out = split(read_index(tmp_path / "i.csv"))
    assert [picture.path.name for picture in training] == ["b.png"]
    assert [picture.path.name for picture in held_out] == ["a.png"]


def test_figures_rest_on_folds_that_the_index_gives(tmp_path: Path) -> None:
    every = read_index(written(tmp_path, HELD_OUT, OTHER, TASK1_TEST))
    held_out = split(every)[1]
    assert ids(held_out) == ["I1", "I4"]
    assert ids(reported(held_out)) == ["I1"]
    assert ids(reported(held_out[1:])) == ["I4"]


def a_picture(number: int, lesion: str, patient: str, dx: str) -> Picture:
    name = f"{number}.png"
    return Picture(Path(name), "own", name, lesion, patient, dx, None, "", 1, 0, 0, None, False)


rows = st.lists(
    st.tuples(
        st.sampled_from("abcdefgh"), st.sampled_from(["", "p", "q", "r"]), st.sampled_from(["nv", "mel"])
    ),
    min_size=1,
    max_size=25,
)


@settings(deadline=None, max_examples=60)
@given(rows, st.floats(0, 1), st.integers(0, 3))
def test_a_validation_part_shares_nobody_with_the_rest(
    table: list[tuple[str, str, str]], share: float, seed: int
) -> None:
    pictures = [a_picture(number, *row) for number, row in enumerate(table)]
    rest, looked_at = validation_part(pictures, share, seed)
    check_no_leak(rest, looked_at)
    assert sorted(p.path for p in (*rest, *looked_at)) == sorted(p.path for p in pictures)
    again = validation_part(list(reversed(pictures)), share, seed)[1]
    assert {p.path for p in again} == {p.path for p in looked_at}
    if share == 0:
        assert not looked_at


def test_every_class_of_the_training_side_is_looked_at(own: Path) -> None:
    training = split_index(own)[0]
    rest, looked_at = validation_part(training, 0.1, seed=1)
    assert {p.dx for p in looked_at} == {p.dx for p in rest} == {"nv", "mel", "bcc"}
    assert 0.05 < len(looked_at) / len(training) < 0.35


def test_the_segmenter_s_sides_share_nobody(own: Path) -> None:
    training, held_out = split_sources(own, fold=2)
    assert len(training.collections) == 1 and not training.skin and not training.nonskin
    rest, looked_at = validation_sources(training, 0.2, seed=1)
    check_no_leak(rest.collections[0], looked_at.collections[0])
    check_no_leak((*rest.collections[0], *looked_at.collections[0]), held_out.collections[0])


def test_a_source_can_be_left_out_or_drawn_less(tmp_path: Path) -> None:
    index = index_of(tmp_path, lesions=30, pictures_of_each=1)
    lesions = training_and_held_out(index)[0]
    twice = draw_probabilities(lesions, 0.0, {"site": 2.0, "other": 0.1})
    assert twice == pytest.approx(1 / len(lesions))
    even = draw_probabilities(lesions[3:], 1.0, {})
    labels = [lesion.label for lesion in lesions[3:]]
    shares = [even[[label == each for each in labels]].sum() for label in set(labels)]
    assert shares == pytest.approx([1 / 3] * 3)
    assert class_counts(lesions).sum() == len(lesions)
    with pytest.raises(NothingToLearn, match="column dx"):
        training_lesions(index, 0, recipe([[32, 4]], source_weights={"site": 0.0}), seed=1)


def test_an_index_without_outlines_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    index = written(tmp_path, SAME_LESION, OTHER)
    with pytest.raises(NothingOutlined, match="mask_path"):
        split_sources(index)
    with pytest.raises(NothingToLearn, match="mask_path"):
        training_lesions(index, 0, recipe([[32, 4]]), seed=1)
