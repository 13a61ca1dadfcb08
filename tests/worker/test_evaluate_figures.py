"""The figures of `evaluate`: known values, invariances, and intervals that respect lesions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from cds_worker.evaluation.figures import area_under_roc, balanced_accuracy, bootstrapped, mean, ratio

CLASSES = ("akiec", "bcc", "mel", "nv")
answers = st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=4, max_size=60)
scored = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=4, max_size=60)


@given(answers)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_balanced_accuracy_is_that_of_the_field(pairs: list[tuple[str, str]]) -> None:
    truth, answer = (list(each) for each in zip(*pairs, strict=True))
    assert balanced_accuracy(truth, answer)(np.ones(len(truth))) == pytest.approx(
        balanced_accuracy_score(truth, answer)
    )


@given(scored)
def test_area_under_roc_is_that_of_the_field_with_ties(pairs: list[tuple[bool, int]]) -> None:
    positive, score = (list(each) for each in zip(*pairs, strict=True))
    area = area_under_roc(positive, score)(np.ones(len(score)))
    if len(set(positive)) < 2:
        assert np.isnan(area)
    else:
        assert area == pytest.approx(roc_auc_score(positive, score))


@given(scored)
def test_a_weight_of_two_is_the_row_twice(pairs: list[tuple[bool, int]]) -> None:
    positive, score = (list(each) for each in zip(*pairs, strict=True))
    doubled = area_under_roc(positive + positive[:1], score + score[:1])(np.ones(len(score) + 1))
    weights = np.ones(len(score))
    weights[0] = 2
    assert area_under_roc(positive, score)(weights) == pytest.approx(doubled, nan_ok=True)


def test_mean_leaves_out_what_is_unknown_and_ratio_divides_sums() -> None:
    assert mean([1.0, float("nan"), 3.0])(np.ones(3)) == 2.0
    assert ratio([1, 1], [2, 4])(np.ones(2)) == pytest.approx(1 / 3)
    assert np.isnan(ratio([0], [0])(np.ones(1)))


def test_many_pictures_of_one_lesion_do_not_narrow_the_interval() -> None:
    values = [0.0, 1.0] * 10
    apart = bootstrapped(mean(values * 10), [str(index) for index in range(200)])
    grouped = bootstrapped(mean(values * 10), [str(index % 20) for index in range(200)])
    assert apart.value == grouped.value == 0.5
    assert (apart.lesions, grouped.lesions) == (200, 20)
    assert grouped.high - grouped.low > 2 * (apart.high - apart.low)


def test_an_interval_is_the_same_at_every_run_and_holds_the_value() -> None:
    values, lesions = [0.1, 0.9, 0.4, 0.7], ["a", "b", "c", "d"]
    first = bootstrapped(mean(values), lesions)
    assert first == bootstrapped(mean(values), lesions)
    assert first.low <= first.value <= first.high
