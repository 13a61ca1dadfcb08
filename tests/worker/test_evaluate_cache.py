"""What was observed comes back from disk exactly, and only for the same picture, mask and bundles."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from evaluation_cases import a_case, a_lesion, an_observation
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cds_bundles.skin_tone import SkinTone
from cds_plugin.errors import Refused
from cds_plugin.study import BoundingBox, Lesion, LesionClass, Quality, Verdict
from cds_worker.evaluation.cache import Cache, key_of
from cds_worker.evaluation.cases import Case
from cds_worker.evaluation.observing import Observation

numbers = st.floats(0, 1)
masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=20)).filter(np.any)


@st.composite
def lesions(draw: st.DrawFn, number: int = 1) -> Lesion:
    mask = draw(masks)
    x0, y0 = draw(st.integers(0, 50)), draw(st.integers(0, 50))
    height, width = mask.shape
    return Lesion(
        number,
        BoundingBox(x0, y0, x0 + width, y0 + height),
        mask,
        draw(numbers),
        tuple(draw(st.lists(numbers, min_size=7, max_size=7))),
        tuple(draw(st.lists(st.sampled_from(LesionClass), unique=True))),
        draw(st.none() | numbers),
    )


observations = st.builds(
    Observation,
    rows=st.integers(1, 9000),
    columns=st.integers(1, 9000),
    quality=st.builds(
        Quality,
        st.sampled_from(Verdict),
        st.lists(st.text(), max_size=2).map(tuple),
        st.none() | numbers,
        st.none() | numbers,
    ),
    lesions=st.lists(lesions(), max_size=2).map(tuple),
    tone=st.builds(SkinTone, st.text(), st.none() | numbers),
)


def same(one: Observation, other: Observation) -> bool:
    facts = [
        (
            (each.rows, each.columns, each.quality, each.tone),
            [(a.bbox, a.score, a.probabilities, a.prediction_set, a.ood_score) for a in each.lesions],
        )
        for each in (one, other)
    ]
    outlines = zip(one.lesions, other.lesions, strict=True)
    return facts[0] == facts[1] and all((a.mask == b.mask).all() for a, b in outlines)


@settings(max_examples=40, deadline=None)
@given(observations)
def test_an_observation_survives_the_disk_exactly(observation: Observation) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "observations.jsonl")
        with Cache(path) as cache:
            cache.put("key", observation)
        with Cache(path) as cache:
            kept = cache.get("key")
    assert kept is not None
    assert same(kept, observation)


def test_a_line_that_was_cut_off_is_made_again_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "observations.jsonl"
    with Cache(path) as cache:
        cache.put("first", an_observation(a_lesion()))
        cache.put("second", an_observation())
    path.write_bytes(path.read_bytes()[:-20])
    with Cache(path) as cache:
        assert cache.get("first") is not None
        assert cache.get("second") is None
        cache.put("second", an_observation())
    with Cache(path) as cache:
        assert cache.get("first") is not None
        assert cache.get("second") is not None


@pytest.mark.parametrize("damage", [{"verdict": "splendid"}, {"tone": []}, {"lesions": [{}]}, {"reasons": 7}])
def test_a_line_of_nonsense_is_no_observation(damage: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "observations.jsonl"
    with Cache(path) as cache:
        cache.put("key", an_observation(a_lesion()))
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}) + "\n[]\n\x00\n")
    with Cache(path) as cache:
        assert cache.get("key") is None


def test_fresh_forgets_everything(tmp_path: Path) -> None:
    path = tmp_path / "observations.jsonl"
    with Cache(path) as cache:
        cache.put("key", an_observation())
    with Cache(path, fresh=True) as cache:
        assert cache.get("key") is None
    assert path.read_text() == ""


def test_the_key_follows_content_not_names(tmp_path: Path) -> None:
    for name, content in (("a.png", b"one"), ("b.png", b"one"), ("c.png", b"two"), ("m.png", b"mask")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (a_case(lesion_id=name) for name in "abc")
    keys = {
        name: key_of(_at(case, tmp_path / f"{name}.png"), ("bundle",))
        for name, case in zip("abc", (a, b, c), strict=True)
    }
    assert keys["a"] == keys["b"] != keys["c"]
    assert key_of(_at(a, tmp_path / "a.png"), ("other bundle",)) != keys["a"]
    assert key_of(_at(a, tmp_path / "a.png", tmp_path / "m.png"), ("bundle",)) != keys["a"]
    with pytest.raises(Refused) as caught:
        key_of(_at(a, tmp_path / "none.png"), ())
    assert caught.value.code == "unreadable_file"


def _at(case: Case, path: Path, mask: Path | None = None) -> Case:
    return replace(case, path=path, mask_path=mask)


def test_a_folder_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused) as caught, Cache(tmp_path / "file" / "observations.jsonl"):
        raise AssertionError("a file is no folder")
    assert caught.value.code == "output_folder"
