"""The checks that see a stranger's bytes first: pure, so asked for any bytes at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pdus import (
    C_ECHO_RQ,
    CONTEXTS,
    IMPLICIT_LITTLE,
    VERIFICATION,
    associate_rq,
    command_set,
    context,
    echo_command,
    item,
)

from cds_plugin.commitment.request import REFERENCES_PER_REQUEST, ActionRefused, ActionStatus, check_size
from cds_plugin.receive import bounds
from cds_plugin.receive.fragments import IS_COMMAND, IS_LAST, MessageOrder, command_field_of
from cds_plugin.receive.negotiation import request_problem

FULL = [context(2 * n + 1, VERIFICATION, *[IMPLICIT_LITTLE] * 40) for n in range(bounds.CONTEXTS)]


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_no_bytes_break_them(noise: bytes, more: bytes) -> None:
    request_problem(noise)
    request_problem(associate_rq()[:74] + noise)
    command_field_of(noise)
    order = MessageOrder()
    order.problem(1, noise)
    order.problem(1, more)


@pytest.mark.parametrize("contexts", [CONTEXTS, FULL, []], ids=["usual", "128 of 40 syntaxes", "none"])
def test_requests_within_bounds_pass(contexts: list[bytes]) -> None:
    assert request_problem(associate_rq(contexts)) is None


@pytest.mark.parametrize(
    ("request_pdu", "problem"),
    [
        (associate_rq([*FULL, context(1, VERIFICATION, IMPLICIT_LITTLE)]), "too many presentation"),
        (associate_rq([FULL[0], FULL[0]]), "one number"),
        (associate_rq([context(1, VERIFICATION)]), "without its syntaxes"),
        (associate_rq([item(0x20, b"\1\0\0\0" + item(0x40, IMPLICIT_LITTLE))]), "without its syntaxes"),
        (associate_rq([item(0x20, b"")]), "without its syntaxes"),
        (associate_rq() + bytes(bounds.REQUEST_BYTES), "too many bytes"),
    ],
)
def test_requests_beyond_bounds(request_pdu: bytes, problem: str) -> None:
    assert problem in (request_problem(request_pdu) or "")


def test_the_field_of_a_command() -> None:
    assert command_field_of(command_set(echo_command())) == C_ECHO_RQ
    assert command_field_of(command_set({})) is None


@given(st.lists(st.tuples(st.sampled_from([1, 3]), st.integers(0, 3))))
def test_only_one_order_of_fragments_passes(fragments: list[tuple[int, int]]) -> None:
    """Command fragments of one context, its last one, and then only data of the same context."""
    order, command_is_over = MessageOrder(), False
    for number, (context_id, control) in enumerate(fragments):
        fits = context_id == fragments[0][0] and bool(control & IS_COMMAND) != command_is_over
        assert (order.problem(context_id, bytes((control, 0))) is None) == fits, number
        if not fits:
            return
        command_is_over |= bool(control & IS_LAST)


def test_as_many_references_as_are_taken() -> None:
    head = b"\xfe\xff\x00\xe0\0\0\0\0"
    check_size(head * REFERENCES_PER_REQUEST)
    for encoded in (head * (REFERENCES_PER_REQUEST + 1), b"\xff\xfe\xe0\x00" * (REFERENCES_PER_REQUEST + 1)):
        with pytest.raises(ActionRefused) as refusal:
            check_size(encoded)
        assert refusal.value.status is ActionStatus.RESOURCE_LIMITATION
