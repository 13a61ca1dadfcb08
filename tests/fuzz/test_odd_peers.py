"""Peers that do what the standard allows and few do: they are served like any other."""

from __future__ import annotations

import struct

import pytest
from fuzz_pdus import _negotiation
from pdus import (
    ASSOCIATE_AC,
    DERMOSCOPIC,
    IS_COMMAND,
    IS_LAST,
    Answers,
    associate_rq,
    command_set,
    echo,
    item,
    p_data,
    pdv,
    photograph,
    release,
    store,
    store_command,
    user_information,
)
from siege import Siege
from strangers import Stranger

from cds_plugin.receive.negotiation import with_known_items

STORED = 0x0000
ROLES = item(0x54, struct.pack(">H", len(DERMOSCOPIC)) + DERMOSCOPIC + b"\1\1")
IDENTITY = item(0x58, b"\2\1" + struct.pack(">H", 4) + b"user" + struct.pack(">H", 6) + b"secret")
WAYS_TO_NEGOTIATE = {
    "no limit of length": user_information(maximum=0),
    "small PDUs": user_information(maximum=1024),
    "no implementation": item(0x50, item(0x51, struct.pack(">L", 16384))),
    "no version name": user_information(),
    "a version name of 16": user_information(item(0x55, b"A VERSION 0123.4")),
    "a window of 8 operations": user_information(item(0x53, struct.pack(">HH", 8, 8))),
    "a window without limit": user_information(item(0x53, struct.pack(">HH", 0, 0))),
    "both roles": user_information(ROLES),
    "a user with a password": user_information(IDENTITY),
    "everything": user_information(*_negotiation(), ROLES, maximum=0),
    "sub-items of a later standard": user_information(item(0x5A, b"new"), item(0x5F, b"")),
}


def kinds_and_statuses(answers: Answers) -> tuple[int, list[int]]:
    return answers.kinds[0], answers.statuses


@pytest.mark.parametrize("user", WAYS_TO_NEGOTIATE.values(), ids=WAYS_TO_NEGOTIATE)
def test_whatever_a_peer_negotiates_it_can_store(besieged: Siege, user: bytes) -> None:
    with Stranger(besieged.port) as stranger:
        stranger.say(associate_rq(user=user))
        stranger.listen(until=1)
        stranger.say(store(3, besieged.uid, besieged.image) + echo(message=2) + release())
        answers = stranger.listen(until=4)
    assert kinds_and_statuses(answers) == (ASSOCIATE_AC, [STORED, STORED])
    assert [each.sop_instance_uid for each in besieged.instances()] == [besieged.uid.decode()]


def test_items_that_the_standard_does_not_know_are_skipped() -> None:
    known, unknown = user_information(ROLES), user_information(item(0x5A, b"new"), ROLES, item(0xFF, b""))
    plain = associate_rq(user=known)
    assert with_known_items(plain) == plain
    assert with_known_items(associate_rq(user=item(0x77, b"?") + unknown)) == plain
    for broken in (plain[:-1], plain + b"\0", associate_rq(user=item(0x50, b"\x51\0\0")), plain[:70]):
        assert with_known_items(broken) == broken


def test_a_command_in_pieces_and_a_data_set_that_begins_beside_its_end(besieged: Siege) -> None:
    command = command_set(store_command(besieged.uid, 1))
    image = besieged.image
    with besieged.associated() as stranger:
        stranger.say(p_data(pdv(3, IS_COMMAND, command[:1])))
        stranger.say(p_data(pdv(3, IS_COMMAND, command[1:40]), pdv(3, IS_COMMAND, b"")))
        stranger.say(p_data(pdv(3, IS_COMMAND | IS_LAST, command[40:]), pdv(3, 0, image[:3]), pdv(3, 0, b"")))
        stranger.say(p_data(pdv(3, 0, image[3:]), pdv(3, IS_LAST, b"")))
        assert stranger.listen(until=2).statuses == [STORED]
    assert [each.sop_instance_uid for each in besieged.instances()] == [besieged.uid.decode()]


def test_many_objects_in_changing_contexts(besieged: Siege) -> None:
    uids = [besieged.uid + b".%d" % number for number in range(40)]
    with besieged.associated() as stranger:
        for number, uid in enumerate(uids):
            context, size = ((3, 8192), (9, 700), (3, 100))[number % 3]
            stranger.say(store(context, uid, photograph(uid), message=number + 1, fragment=size))
            stranger.listen(until=2 + number)
        answers = stranger.listen(until=41)
    assert answers.statuses == [STORED] * 40
    assert sorted(each.sop_instance_uid for each in besieged.instances()) == sorted(map(bytes.decode, uids))
