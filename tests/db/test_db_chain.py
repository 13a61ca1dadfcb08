"""The hash chain finds every single change, and says where it begins."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cds_db.chain import GENESIS, Content, Head, Sealed, compare_heads, hash_of, link, walk

texts = st.text(max_size=12)
contents = st.builds(Content, texts, texts, texts, st.none() | texts, st.none() | texts, texts, texts)


def sealed(rows: list[Content]) -> list[Sealed]:
    chain: list[Sealed] = []
    head = Head()
    for content in rows:
        chain.append(link(head, content))
        head = Head(chain[-1].seq, chain[-1].hash)
    return chain


chains = st.lists(contents, min_size=1, max_size=6).map(sealed)
places = st.integers(min_value=0, max_value=5)


@given(chains)
def test_an_untouched_chain_holds_and_ends_at_its_head(chain: list[Sealed]) -> None:
    walked = walk(chain)
    assert walked.problem is None
    assert walked.head == Head(len(chain), chain[-1].hash)
    assert compare_heads(walked.head, walked.head).problem is None


@given(chains, places, contents)
def test_a_changed_row_is_named(chain: list[Sealed], place: int, content: Content) -> None:
    place %= len(chain)
    if content == chain[place].content:
        return
    chain[place] = replace(chain[place], content=content)
    walked = walk(chain)
    assert walked.first_bad_seq == place + 1
    assert walked.problem == f"row {place + 1} was changed"


@given(chains, places, contents)
def test_a_row_changed_together_with_its_hash_is_found_at_the_next_row_or_at_the_head(
    chain: list[Sealed], place: int, content: Content
) -> None:
    place %= len(chain)
    if content == chain[place].content:
        return
    head = Head(len(chain), chain[-1].hash)
    old = chain[place]
    chain[place] = Sealed(old.seq, content, old.previous_hash, hash_of(old.seq, content, old.previous_hash))
    walked = walk(chain)
    if place + 1 < len(chain):
        assert walked.first_bad_seq == place + 2
    else:
        assert walked.problem is None
        assert compare_heads(walked.head, head).first_bad_seq == place + 1


@given(chains, places)
def test_a_missing_row_is_named(chain: list[Sealed], place: int) -> None:
    place %= len(chain)
    head = Head(len(chain), chain[-1].hash)
    del chain[place]
    walked = walk(chain)
    found = walked if walked.problem else compare_heads(walked.head, head)
    assert found.first_bad_seq == place + 1
    assert "missing" in str(found.problem)


@given(chains, places, contents)
def test_a_row_inserted_with_every_later_place_shifted_is_found(
    chain: list[Sealed], place: int, content: Content
) -> None:
    place %= len(chain)
    before = chain[place - 1].hash if place else GENESIS
    forged = Sealed(place + 1, content, before, hash_of(place + 1, content, before))
    shifted = [replace(row, seq=row.seq + 1) for row in chain[place:]]
    walked = walk([*chain[:place], forged, *shifted])
    assert walked.first_bad_seq == place + 2 or forged == chain[place]


@given(st.lists(contents, min_size=2, max_size=6, unique=True).map(sealed), places)
def test_two_rows_that_swapped_places_are_found(chain: list[Sealed], place: int) -> None:
    place %= len(chain) - 1
    one, other = chain[place], chain[place + 1]
    chain[place : place + 2] = [replace(other, seq=one.seq), replace(one, seq=other.seq)]
    walked = walk(chain)
    assert walked.first_bad_seq == place + 1
    assert "re-ordered" in str(walked.problem)


@given(chains)
def test_heads_that_do_not_fit_are_named(chain: list[Sealed]) -> None:
    reached = walk(chain).head
    assert compare_heads(reached, None).problem == "the stored head is gone"
    assert compare_heads(reached, Head(reached.seq + 2, reached.hash)).first_bad_seq == reached.seq + 1
    assert compare_heads(reached, Head(reached.seq - 1, reached.hash)).first_bad_seq == reached.seq
    assert compare_heads(reached, Head(reached.seq, "0" * 64)).first_bad_seq == reached.seq


@given(contents, st.integers(1, 9), st.sampled_from(["at", "event", "actor", "outcome", "detail"]))
def test_the_hash_covers_every_field(content: Content, seq: int, field: str) -> None:
    original = hash_of(seq, content, GENESIS)
    assert original != hash_of(seq + 1, content, GENESIS)
    assert original != hash_of(seq, content, "1" * 64)
    assert original != hash_of(seq, replace(content, **{field: getattr(content, field) + "x"}), GENESIS)
    for uid in ("study_instance_uid", "sop_instance_uid"):
        assert original != hash_of(
            seq, replace(content, **{uid: (getattr(content, uid) or "") + "x"}), GENESIS
        )
    assert len(original) == 64
