"""The bytes around a C-STORE are those that pynetdicom reads and writes."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import UID, JPEGBaseline8Bit
from pynetdicom.dimse_messages import C_ECHO_RQ, C_STORE_RQ, C_STORE_RSP
from pynetdicom.dimse_primitives import C_ECHO, C_STORE
from pynetdicom.dsutils import create_file_meta, encode_file_meta
from pynetdicom.pdu import P_DATA_TF

from cds_plugin.receive.command import PREAMBLE, StoreRequest, file_head, store_request, store_response

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

DERMOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.7"


def a_request(instance: str = "1.2.3", message_id: int = 7, move_originator: bool = False) -> C_STORE:
    request = C_STORE()
    request.MessageID = message_id
    request.AffectedSOPClassUID = DERMOSCOPIC
    request.AffectedSOPInstanceUID = instance
    request.Priority = 2
    request.DataSet = io.BytesIO(b"data")
    if move_originator:
        request.MoveOriginatorApplicationEntityTitle = "PACS"
        request.MoveOriginatorMessageID = 3
    return request


def command_of(request: C_STORE | C_ECHO) -> bytes:
    """Return the command set as pynetdicom encodes it."""
    message = C_STORE_RQ() if isinstance(request, C_STORE) else C_ECHO_RQ()
    message.primitive_to_message(request)
    first = next(message.encode_msg(1, 0))
    return first.presentation_data_value_list[0][1][1:]


@pytest.mark.parametrize("move_originator", [False, True])
@pytest.mark.parametrize("instance", ["1.2.3", "1.2.34"])
def test_the_request_of_pynetdicom_is_read(instance: str, move_originator: bool) -> None:
    command = command_of(a_request(instance, move_originator=move_originator))
    assert store_request(command) == StoreRequest(7, DERMOSCOPIC, instance)


def test_other_commands_and_unusual_forms_are_left_alone() -> None:
    echo = C_ECHO()
    echo.MessageID = 1
    echo.AffectedSOPClassUID = UID("1.2.840.10008.1.1")
    usual = command_of(a_request())
    element = struct.pack("<HHI", 0, 0x1000, 2) + b"1\0"
    unusual = [
        command_of(echo),
        command_of(a_request('"1.2.3"')),
        b"",
        usual[:-1],
        usual + element,
        usual + struct.pack("<HHI", 0, 0x5000, 0),
        struct.pack("<HHI", 8, 5, 0) + usual,
    ]
    assert [store_request(each) for each in unusual] == [None] * len(unusual)


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_no_bytes_are_a_surprise(noise: bytes) -> None:
    usual = command_of(a_request())
    for command in (noise, usual + noise, usual[: len(noise)] + noise, usual[: -len(noise)] + noise):
        found = store_request(command)
        assert found is None or found.sop_class_uid.replace(".", "").isdigit()


@pytest.mark.parametrize(
    ("status", "comment"), [(0, ""), (0xA700, "disk is below its watermark"), (0xA900, "x" * 90)]
)
def test_the_response_is_that_of_pynetdicom(status: int, comment: str) -> None:
    response = C_STORE()
    response.MessageIDBeingRespondedTo = 7
    response.AffectedSOPClassUID = DERMOSCOPIC
    response.AffectedSOPInstanceUID = "1.2.3"
    response.Status = status
    if comment:
        response.ErrorComment = comment[:64]
    message = C_STORE_RSP()
    message.primitive_to_message(response)
    (data,) = message.encode_msg(5, 16384)
    assert (
        store_response(5, StoreRequest(7, DERMOSCOPIC, "1.2.3"), status, comment) == P_DATA_TF(data).encode()
    )


def test_the_file_meta_information_is_that_of_pynetdicom() -> None:
    meta = create_file_meta(
        sop_class_uid=UID(DERMOSCOPIC), sop_instance_uid=UID("1.2.3"), transfer_syntax=JPEGBaseline8Bit
    )
    expected = PREAMBLE + encode_file_meta(meta)
    assert file_head(StoreRequest(7, DERMOSCOPIC, "1.2.3"), JPEGBaseline8Bit) == expected
