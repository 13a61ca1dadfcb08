"""A lesion keeps its identity where it is like one known lesion and no other; else none is claimed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cds_plugin.priors.known import KnownLesion, Place, SeenLesion, tracks
from cds_plugin.priors.matching import Bounds, matched
from cds_plugin.study import Appearance, Sha256

MODEL = Sha256("a" * 64)
BOUNDS = Bounds(likeness=0.6, margin=0.1)
FIRST_VISIT = datetime(2024, 5, 1, tzinfo=UTC)


def looks(*values: float, model: Sha256 = MODEL) -> Appearance:
    vector = np.array(values, np.float64)
    return Appearance(tuple((vector / np.linalg.norm(vector)).tolist()), model)


def seen(number: int, appearance: Appearance, place: Place | None = None) -> SeenLesion:
    return SeenLesion(number, place or Place(), appearance)


def known(
    uid: str, appearance: Appearance, place: Place | None = None, observed: datetime = FIRST_VISIT
) -> KnownLesion:
    return KnownLesion(uid, f"study-{uid}", f"image-{uid}", observed, place or Place(), appearance, 0.2, None)


def test_a_lesion_that_looks_the_same_is_the_same() -> None:
    match = matched(
        [seen(1, looks(1, 0.1, 0))], [known("7", looks(1, 0, 0)), known("8", looks(0, 0, 1))], BOUNDS
    )
    assert match[1].prior.tracking_uid == "7"
    assert match[1].likeness == pytest.approx(0.995, abs=0.001)


def test_a_new_lesion_is_not_claimed_to_be_known() -> None:
    assert not matched([seen(1, looks(1, 0, 0))], [known("7", looks(0.5, 1, 0))], BOUNDS)


def test_two_known_lesions_that_it_could_be_are_none() -> None:
    twins = [known("7", looks(1, 0.1, 0)), known("8", looks(1, 0, 0.1))]
    assert not matched([seen(1, looks(1, 0, 0))], twins, BOUNDS)


def test_two_lesions_of_a_picture_that_one_known_could_be_are_none() -> None:
    pair = [seen(1, looks(1, 0.1, 0)), seen(2, looks(1, 0, 0.1))]
    assert not matched(pair, [known("7", looks(1, 0, 0))], BOUNDS)


def test_what_stands_at_another_site_is_another_lesion() -> None:
    back, foot, unknown = Place("123961009"), Place("56459004"), Place()
    lesion = looks(1, 0, 0)
    assert not matched([seen(1, lesion, back)], [known("7", lesion, foot)], BOUNDS)
    assert matched([seen(1, lesion, back)], [known("7", lesion, unknown)], BOUNDS)
    left, right = Place("56459004", "L"), Place("56459004", "R")
    assert not matched([seen(1, lesion, left)], [known("7", lesion, right)], BOUNDS)


def test_what_another_model_saw_is_not_compared() -> None:
    other = looks(1, 0, 0, model=Sha256("b" * 64))
    assert not matched([seen(1, looks(1, 0, 0))], [known("7", other)], BOUNDS)


def test_the_latest_observation_is_the_prior() -> None:
    lesion = looks(1, 0, 0)
    first = known("7", lesion)
    second = replace(first, observed=FIRST_VISIT + timedelta(days=90), sop_instance_uid="later")
    assert matched([seen(1, lesion)], [second, first], BOUNDS)[1].prior == second
    assert tracks([second, first])[0].observations == (first, second)


def test_an_appearance_that_is_no_direction_is_refused() -> None:
    with pytest.raises(ValueError, match="length 1"):
        Appearance((1.0, 1.0), MODEL)


vectors = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda row: np.linalg.norm(row) > 0.1)


@given(
    now=st.lists(vectors, min_size=1, max_size=5),
    before=st.lists(vectors, max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_matches_are_one_to_one_and_do_not_depend_on_order(
    now: list[list[float]], before: list[list[float]], order: object
) -> None:
    lesions = [seen(number, looks(*row)) for number, row in enumerate(now, start=1)]
    earlier = [known(str(number), looks(*row)) for number, row in enumerate(before)]
    found = matched(lesions, earlier, BOUNDS)
    uids = [match.prior.tracking_uid for match in found.values()]
    assert len(uids) == len(set(uids))
    assert all(match.likeness >= BOUNDS.likeness for match in found.values())
    order.shuffle(lesions)  # type: ignore[attr-defined]
    order.shuffle(earlier)  # type: ignore[attr-defined]
    assert matched(lesions, earlier, BOUNDS) == found
