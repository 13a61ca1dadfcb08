"""Senders that break off, lie about lengths, ask for too much or mix things up: only they feel it.

The fixture asks after every test whether the listener is unharmed (siege.py).
"""

from __future__ import annotations

import struct
import time
import zlib
from dataclasses import replace

import pytest
from pdus import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    C_CANCEL_RQ,
    C_FIND_RQ,
    COMMAND_FIELD,
    CONTEXTS,
    DATA_SET_TYPE,
    DEFLATED,
    DERMOSCOPIC,
    EVENT_TYPE,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    IS_COMMAND,
    IS_LAST,
    MESSAGE_ID,
    N_ACTION_RQ,
    N_CREATE_RQ,
    N_DELETE_RQ,
    N_EVENT_REPORT_RQ,
    N_GET_RQ,
    N_SET_RQ,
    P_DATA_TF,
    PUSH_MODEL,
    RELEASE_RP,
    RELEASE_RQ,
    REQUESTED_SOP_CLASS,
    REQUESTED_SOP_INSTANCE,
    RESPONDED_TO,
    STATUS,
    VERIFICATION,
    abort,
    associate_rq,
    command_set,
    commit,
    context,
    echo,
    echo_command,
    implicit,
    item,
    number,
    p_data,
    pdu,
    pdv,
    photograph,
    release,
    store,
    store_command,
    user_information,
)
from siege import Siege
from strangers import SMALL, Stranger, a_folder, a_ward, echoes, said

from cds_plugin.receive.bounds import MESSAGE_BYTES, MESSAGES_WAITING
from cds_plugin.wire import PDU_BYTES_ACCEPTED

UID = b"1.2.3.4"
WHOLE = IS_COMMAND | IS_LAST
IMAGE = photograph(UID)
UNRECOGNIZED_OPERATION, RESOURCE_LIMITATION, INVALID_ARGUMENT = 0x0211, 0x0213, 0x0115
CANNOT_UNDERSTAND, OUT_OF_RESOURCES, STORED = 0xC000, 0xA700, 0x0000


STATES = {
    "connected": b"",
    "half a request": associate_rq()[:100],
    "requested": associate_rq(),
    "half a PDU head": associate_rq() + b"\4\0\0",
    "half a command": associate_rq() + store(3, UID, IMAGE)[:60],
    "a command": associate_rq() + p_data(pdv(3, WHOLE, command_set(store_command(UID)))),
    "half an object": associate_rq() + store(3, UID, IMAGE, fragment=40)[:-60],
    "an object": associate_rq() + store(3, UID, IMAGE),
    "a release": associate_rq() + release(),
}
ENDS = {"close": b"", "reset": None, "abort": abort(), "abort and more": abort() + echo() + abort()}


@pytest.mark.parametrize("end", ENDS)
def test_broken_off_in_every_state(besieged: Siege, end: str) -> None:
    last = ENDS[end]
    for pause in (0.0, 0.05):
        for script in STATES.values():
            with Stranger(besieged.port) as stranger:
                stranger.say(script[: len(associate_rq())])
                time.sleep(pause)
                stranger.say(script[len(associate_rq()) :] + (last or b""))
                time.sleep(pause)
                if last is None:
                    stranger.reset()


LIES = {
    "a PDU of 4 GB": pdu(P_DATA_TF, b"x", 0xFFFFFFFF),
    "a PDU just too long": pdu(P_DATA_TF, b"x", PDU_BYTES_ACCEPTED + 1),
    "an empty P-DATA": pdu(P_DATA_TF, b""),
    "a fragment of 4 GB": p_data(pdv(1, WHOLE, b"x", 0xFFFFFFFF)),
    "a fragment of length 0": p_data(pdv(1, WHOLE, b"x", 0)),
    "a fragment of length 1": p_data(pdv(1, WHOLE, b"", 1)),
    "a fragment longer than its PDU": p_data(pdv(1, WHOLE, b"x", 40)),
    "half a fragment head": pdu(P_DATA_TF, b"\0\0"),
    "a release of 1 MB": pdu(RELEASE_RQ, b"\0" * 1_000_000),
    "an empty release": pdu(RELEASE_RQ, b""),
    "an empty abort": pdu(ABORT, b""),
    "a PDU of no kind": pdu(0x55, b"\0" * 4),
    "an acceptance": pdu(ASSOCIATE_AC, b"\0" * 68),
    "a rejection": pdu(ASSOCIATE_RJ, b"\0\1\1\1"),
    "an answer to a release": pdu(RELEASE_RP, b"\0" * 4),
    "a second request": associate_rq(),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_lies_about_lengths_and_kinds_end_the_association(besieged: Siege, lie: bytes) -> None:
    with besieged.associated() as stranger:
        stranger.say(lie + echo())
        stranger.connection.settimeout(1)
        time.sleep(0.05)
        stranger.say(release())
        answers = stranger.listen(quiet=0.5)
        stranger.reset()
    assert set(answers.kinds[1:]) <= {ABORT, RELEASE_RP, P_DATA_TF}


MIXED_UP = {
    "a data set without its command": p_data(pdv(3, IS_LAST, IMAGE)),
    "a data set half way through a command": p_data(
        pdv(3, IS_COMMAND, command_set(store_command(UID))[:30]), pdv(3, 0, b"x")
    ),
    "a second command before the data set": 2 * p_data(pdv(3, WHOLE, command_set(store_command(UID)))),
    "a data set in another context": p_data(
        pdv(3, WHOLE, command_set(store_command(UID))), pdv(5, IS_LAST, IMAGE)
    ),
    "a command in two contexts": p_data(
        pdv(1, IS_COMMAND, command_set(echo_command())[:20]),
        pdv(3, WHOLE, command_set(echo_command())[20:]),
    ),
    "a context never asked for": store(99, UID, IMAGE),
    "an even context": echo(2),
    "an empty command": p_data(pdv(1, WHOLE, b"")),
    "a command of noise": p_data(pdv(1, WHOLE, bytes(range(256)) * 4)),
    "an event report": p_data(
        pdv(1, WHOLE, command_set({**echo_command(), COMMAND_FIELD: N_EVENT_REPORT_RQ, EVENT_TYPE: 1}))
    ),
}


@pytest.mark.parametrize("script", MIXED_UP.values(), ids=MIXED_UP)
def test_messages_mixed_up_end_the_association(besieged: Siege, script: bytes) -> None:
    with besieged.associated() as stranger:
        stranger.say(script)
        assert stranger.ended(3)
        assert set(stranger.listen().kinds[1:]) == {ABORT}
    assert not besieged.instances()


@pytest.mark.parametrize("missing", sorted(store_command(UID)))
def test_a_store_command_that_lacks_an_element(besieged: Siege, missing: int) -> None:
    command = {element: value for element, value in store_command(besieged.uid).items() if element != missing}
    with besieged.associated() as stranger:
        stranger.say(p_data(pdv(3, WHOLE, command_set(command))) + p_data(pdv(3, IS_LAST, besieged.image)))
        answers = stranger.listen(quiet=0.5)
    assert answers.kinds[1:] in ((ABORT,), (P_DATA_TF,))
    assert len(besieged.instances()) == answers.statuses.count(STORED)


@pytest.mark.parametrize("length", [0, 1, 7, 0xFFFFFFFF])
def test_a_wrong_group_length_is_no_reason_to_refuse(besieged: Siege, length: int) -> None:
    with besieged.associated() as stranger:
        stranger.say(p_data(pdv(1, WHOLE, command_set(echo_command(), length))))
        assert stranger.listen(until=2).statuses == [STORED]


def test_several_messages_in_one_pdu_are_all_answered(besieged: Siege) -> None:
    with besieged.associated() as stranger:
        stranger.say(
            p_data(
                pdv(1, WHOLE, command_set(echo_command(1))),
                pdv(3, WHOLE, command_set(store_command(besieged.uid, 2))),
                pdv(3, IS_LAST, besieged.image),
                pdv(1, WHOLE, command_set(echo_command(3))),
            )
        )
        answers = stranger.listen(until=4)
    assert answers.statuses == [STORED] * 3
    assert [number(each, RESPONDED_TO) for each in answers.commands] == [1, 2, 3]
    assert [each.sop_instance_uid for each in besieged.instances()] == [besieged.uid.decode()]


def test_an_object_in_fragments_of_one_byte(besieged: Siege) -> None:
    with besieged.associated() as stranger:
        stranger.say(store(3, besieged.uid, besieged.image, fragment=1))
        assert stranger.listen(until=2).statuses == [STORED]


SERVICES_NOT_OFFERED = (C_FIND_RQ, N_GET_RQ, N_SET_RQ, N_ACTION_RQ, N_CREATE_RQ, N_DELETE_RQ, 0x0021, 0x0010)


@pytest.mark.parametrize("field", SERVICES_NOT_OFFERED)
def test_services_not_offered(besieged: Siege, field: int) -> None:
    said_so = {
        **echo_command(),
        COMMAND_FIELD: field,
        DATA_SET_TYPE: 0x0101,
        REQUESTED_SOP_CLASS: VERIFICATION,
        REQUESTED_SOP_INSTANCE: UID,
    }
    with besieged.associated() as stranger:
        stranger.say(p_data(pdv(1, WHOLE, command_set(said_so))))
        answers = stranger.listen(quiet=0.5)
    assert answers.kinds[1:] == (ABORT,) or answers.statuses == [UNRECOGNIZED_OPERATION]


def test_cancels_and_answers_that_nobody_asked_for(besieged: Siege) -> None:
    cancel = {COMMAND_FIELD: C_CANCEL_RQ, RESPONDED_TO: 1, DATA_SET_TYPE: 0x0101}
    answer = {**echo_command(), COMMAND_FIELD: 0x8030, RESPONDED_TO: 1, STATUS: 0}
    del answer[MESSAGE_ID]
    with besieged.associated() as stranger:
        for command in [cancel | {RESPONDED_TO: n} for n in range(30)] + [answer] * 30:
            stranger.say(p_data(pdv(1, WHOLE, command_set(command))))
        time.sleep(0.3)
        stranger.say(echo())
        answers = stranger.listen(until=2)
    assert answers.statuses == [STORED]


def test_requests_without_waiting_for_answers_are_bounded(besieged: Siege) -> None:
    with besieged.associated() as stranger:
        stranger.say(b"".join(echo(message=n) for n in range(1, 20 * MESSAGES_WAITING)))
        assert stranger.ended(5)
        assert stranger.listen().kinds[-1] == ABORT
    with besieged.associated() as stranger:
        stranger.say(b"".join(echo(message=n) for n in range(1, MESSAGES_WAITING)))
        assert stranger.listen(until=MESSAGES_WAITING).statuses == [STORED] * (MESSAGES_WAITING - 1)


REQUESTS = {
    "no called title": associate_rq(called=b""),
    "no calling title": associate_rq(calling=b""),
    "titles of zeros": associate_rq(called=b"\0" * 16, calling=b"\0" * 16),
    "titles beyond ASCII": associate_rq(called="KRÄNK".encode(), calling="Ä\xff".encode("latin-1")),
    "titles of control characters": associate_rq(calling=b"\x1b[31mRED\r\n"),
    "no application context": pdu(ASSOCIATE_RQ, associate_rq()[6:74]),
    "another application context": associate_rq(application=b"1.2.3"),
    "no contexts": associate_rq([]),
    "no user information": pdu(ASSOCIATE_RQ, associate_rq(user=b"")[6:]),
    "an empty user information": associate_rq(user=item(0x50, b"")),
    "two user informations": associate_rq(user=user_information() * 2),
    "user information in user information": associate_rq(user=item(0x50, user_information() * 50)),
    "a maximum length of 0": associate_rq(user=user_information(maximum=0)),
    "a maximum length of 1": associate_rq(user=user_information(maximum=1)),
    "a user identity of no kind": associate_rq(user=user_information(item(0x58, b"\x77\1\xff\xff"))),
    "a role for a class without name": associate_rq(user=user_information(item(0x54, b"\0\0\1\1"))),
    "an item longer than the request": associate_rq([item(0x20, b"\1\0\0\0", 0xFFFF)]),
    "a context without syntaxes": associate_rq([item(0x20, b"\1\0\0\0")]),
    "an abstract syntax of noise": associate_rq([context(1, b"\xff\xfe..", IMPLICIT_LITTLE)]),
    "an abstract syntax of 60 kB": associate_rq([context(1, b"1" * 60_000, IMPLICIT_LITTLE)]),
    "a version of 0": pdu(ASSOCIATE_RQ, b"\0\0" + associate_rq()[8:]),
    "items of no kind": associate_rq([item(0x99, b"x") * 100]),
    "a head alone": pdu(ASSOCIATE_RQ, b"\0" * 68),
    "nothing": pdu(ASSOCIATE_RQ, b""),
}


@pytest.mark.parametrize("request_pdu", REQUESTS.values(), ids=REQUESTS)
def test_odd_association_requests(besieged: Siege, request_pdu: bytes) -> None:
    with Stranger(besieged.port) as stranger:
        stranger.say(request_pdu)
        answers = stranger.listen(until=1)
        stranger.say(echo() + release())
        answers = stranger.listen(quiet=0.5)
    assert answers.kinds[0] in (ASSOCIATE_AC, ASSOCIATE_RJ, ABORT)
    assert not answers.rest


def test_a_request_that_cannot_be_read_is_audited(besieged: Siege) -> None:
    """Umlauts in an AE title, say: the sender sees an abort, and we must be able to say why."""
    with Stranger(besieged.port) as stranger:
        stranger.say(associate_rq(calling="KRÄNK".encode("latin-1")))
        assert stranger.listen(until=1).kinds == (ABORT,)
    deadline = time.monotonic() + 20
    while not (
        told := [each for each in besieged.ward.audit("caller-refused") if "ASCII" in each.detail["reason"]]
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert told[0].detail["peer"] == "127.0.0.1"


CONTEXT_LISTS = {
    "thousands with all numbers": [context(n % 256, b"1.2.3", b"1.2") for n in range(5000)],
    "one number 200 times": [context(1, VERIFICATION, IMPLICIT_LITTLE)] * 200,
    "one number, different classes": [context(1, b"1.2.%d" % n, IMPLICIT_LITTLE) for n in range(200)],
    "thousands of transfer syntaxes": [context(1, VERIFICATION, *[b"1.2.3"] * 5000)],
    "a megabyte": [context(n % 256, b"1.2.3", b"1.2") for n in range(38_000)],
}


@pytest.mark.parametrize("contexts", CONTEXT_LISTS.values(), ids=CONTEXT_LISTS)
def test_too_many_contexts_are_answered_quickly(besieged: Siege, contexts: list[bytes]) -> None:
    started = time.monotonic()
    with Stranger(besieged.port) as stranger:
        stranger.say(associate_rq(contexts))
        answers = stranger.listen(until=1)
    assert answers.kinds in ((ASSOCIATE_AC,), (ASSOCIATE_RJ,), (ABORT,), ())
    assert time.monotonic() - started < 5


def test_unknown_abstract_syntaxes_and_transfer_syntaxes(besieged: Siege) -> None:
    contexts = [
        context(1, b"1.2.3.4.5", IMPLICIT_LITTLE),
        context(3, DERMOSCOPIC, b"1.2.3.4.5", EXPLICIT_LITTLE),
        context(5, VERIFICATION, b"9.9.9"),
    ]
    with besieged.associated(associate_rq(contexts)) as stranger:
        stranger.say(store(3, besieged.uid, besieged.image))
        answers = stranger.listen(until=2)
    assert answers.kinds[-1] in (P_DATA_TF, ABORT)


def test_deflate_bombs_and_objects_beyond_the_limit(besieged: Siege) -> None:
    press = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = press.compress(besieged.image[:-60] + b"\0" * 4 * SMALL.inflated_bytes) + press.flush()
    with besieged.associated() as stranger:
        stranger.say(store(7, besieged.uid, bomb))
        stranger.say(store(3, besieged.uid, b"\0" * (SMALL.object_bytes + 1), message=2, fragment=16000))
        stranger.say(store(3, besieged.uid, besieged.image, message=3))
        answers = stranger.listen(until=4)
    assert answers.statuses == [CANNOT_UNDERSTAND, OUT_OF_RESOURCES, STORED]
    assert len(bomb) < 10_000 and DEFLATED in CONTEXTS[3]


def test_a_command_without_end_is_cut(besieged: Siege) -> None:
    with besieged.associated() as stranger:
        for _ in range(SMALL.message_bytes // 8000 + 2):
            stranger.say(p_data(pdv(1, IS_COMMAND, b"\0" * 8000)))
        assert stranger.ended(3)


def test_a_data_set_of_an_unoffered_service_is_cut(besieged: Siege) -> None:
    find = command_set({**echo_command(), COMMAND_FIELD: C_FIND_RQ, DATA_SET_TYPE: 1})
    with besieged.associated() as stranger:
        stranger.say(p_data(pdv(1, WHOLE, find)))
        for _ in range(SMALL.message_bytes // 8000 + 2):
            stranger.say(p_data(pdv(1, 0, b"\0" * 8000)))
        assert stranger.ended(3)


TOO_MUCH_TO_COMMIT = {
    "500,000 empty items": implicit(
        {0x00081195: b"1.2.9\0", 0x00081199: struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 500_000}
    ),
    "500,000 empty elements": b"".join(
        struct.pack("<HHL", 9 + 2 * (n >> 16), n & 0xFFFF, 0) for n in range(500_000)
    ),
    "sequences without bottom": struct.pack("<HHLHHL", 8, 0x1199, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    * 30_000,
}


@pytest.mark.parametrize("information", TOO_MUCH_TO_COMMIT.values(), ids=TOO_MUCH_TO_COMMIT)
def test_storage_commitment_of_too_much_is_refused_before_it_is_parsed(information: bytes) -> None:
    with a_folder() as folder:
        ward = a_ward(folder, replace(SMALL, message_bytes=MESSAGE_BYTES))
        with ward.listening(), Stranger(ward.port) as stranger:
            stranger.say(associate_rq())
            stranger.listen(until=1)
            before = time.process_time()
            stranger.say(commit(13, information, fragment=100_000))
            assert stranger.listen(until=2).statuses[0] in (RESOURCE_LIMITATION, INVALID_ARGUMENT)
            assert time.process_time() - before < 1.5
        ward.engine.dispose()


def test_a_deflated_storage_commitment_is_not_accepted(besieged: Siege) -> None:
    request = associate_rq([context(13, PUSH_MODEL, DEFLATED), *CONTEXTS[:1]])
    with besieged.associated(request) as stranger:
        stranger.say(commit(13, b"\0" * 100))
        assert stranger.ended(3)


def test_two_objects_of_one_uid_at_once(besieged: Siege) -> None:
    with besieged.associated() as first, besieged.associated() as second:
        script = [
            store(3, besieged.uid, photograph(besieged.uid, pixels=20 + n), fragment=50) for n in range(2)
        ]
        for start in range(0, max(map(len, script)), 64):
            first.say(script[0][start : start + 64])
            second.say(script[1][start : start + 64])
        assert first.listen(until=2).statuses == second.listen(until=2).statuses == [STORED]
    assert len(besieged.instances()) == 2


def test_a_dripping_sender_does_not_hold_others(besieged: Siege) -> None:
    with Stranger(besieged.port) as dripping:
        for byte in associate_rq()[:40]:
            dripping.say(bytes((byte,)))
            time.sleep(0.005)
        assert echoes(besieged.port)
        assert dripping.ended(SMALL.pdu_seconds + SMALL.acse_seconds + 3)


@pytest.mark.slow
def test_hundreds_of_quick_connects(besieged: Siege) -> None:
    for count in range(300):
        with Stranger(besieged.port) as stranger:
            if count % 3 == 1:
                stranger.say(b"\1")
            elif count % 3 == 2:
                stranger.reset()
        if count % 100 == 0:
            assert echoes(besieged.port)


def test_a_whole_conversation_said_at_once_is_aborted_in_order(besieged: Siege) -> None:
    for _ in range(20):
        answers = said(besieged.port, associate_rq() + store(3, besieged.uid, besieged.image) + release())
        assert answers.kinds in ((), (ABORT,)) or answers.kinds[0] == ASSOCIATE_AC
