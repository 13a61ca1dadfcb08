"""Results to peers that take fewer transfer syntaxes than we store in: nothing changes but the encoding."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from PIL import Image
from postroom import LOOPBACK, Postroom, a_storescp
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.events import Event

from cds_plugin.deliver.recoding import alternatives, recoded
from cds_plugin.errors import Refused
from cds_plugin.study import ResultKind

KINDS = len(ResultKind)
PICTURES = 2
"""Overlay and heat map, which are stored in JPEG."""
OBJECTS = {"SEG": 2, "SR": 1, "OT": PICTURES, "PR": 1, "DOC": 1}
IMAGE_ELEMENTS = ("PhotometricInterpretation", "PlanarConfiguration", "PixelData")


def without_pixels(dataset: Dataset) -> Dataset:
    """Return the data set without what decoding a picture changes."""
    rest = Dataset()
    rest.update(dataset)
    if dataset.SOPClassUID == SecondaryCaptureImageStorage:
        for keyword in IMAGE_ELEMENTS:
            rest.pop(keyword, None)
    return rest


def picture_of(stored: Dataset) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(get_frame(stored.PixelData, 0, number_of_frames=1))))


def in_one_encoding(dataset: Dataset) -> bytes:
    """Return the bytes of a data set in Implicit VR Little Endian, in which nothing else can differ."""
    buffer = BytesIO()
    dataset.save_as(buffer, implicit_vr=True, little_endian=True)
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "syntax"), [("+xi", ImplicitVRLittleEndian), ("+xe", ExplicitVRLittleEndian)]
)
def test_a_peer_of_one_uncompressed_syntax_gets_every_result(
    option: str,
    syntax: str,
    postroom: Postroom,
    ports: list[int],
    tmp_path: Path,
    dciodvfy: Callable[[Path], list[str]],
    dcmtk: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    (job_id,) = postroom.a_real_analysis("pacs", kinds=frozenset(ResultKind))
    with a_storescp(tmp_path / "in", ports[0], option):
        postroom.run(job_id)
    assert postroom.stage() == "complete", postroom.delivery(job_id).last_error
    storage = postroom.settings.storage.directory
    arrived = [(path, dcmread(path)) for path in (tmp_path / "in").iterdir()]
    assert len(arrived) == KINDS
    for path, back in arrived:
        sent = dcmread(storage / "results" / f"{back.SOPInstanceUID}.dcm")
        assert back.file_meta.TransferSyntaxUID == syntax
        assert in_one_encoding(without_pixels(back)) == in_one_encoding(without_pixels(sent))
        assert dciodvfy(path) == []
        if back.SOPClassUID == SecondaryCaptureImageStorage:
            assert sent.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
            assert (back.PhotometricInterpretation, back.PlanarConfiguration) == ("RGB", 0)
            assert back.LossyImageCompression == "01"
            difference = back.pixel_array.astype(np.int16) - picture_of(sent)
            assert np.abs(difference).max() <= 1, "two libraries round colours differently"
    of = {modality: [path for path, each in arrived if each.Modality == modality] for modality in OBJECTS}
    assert {modality: len(paths) for modality, paths in of.items()} == OBJECTS
    assert all(len(hd.seg.segread(path).segment_numbers) == 2 for path in of["SEG"])
    assert dcmtk("dsrdump", of["SR"][0]).returncode == 0
    for path in of["OT"]:
        assert dcmtk("dcm2pnm", path, tmp_path / "shown.ppm").returncode == 0
    assert dcmtk("dcm2pdf", of["DOC"][0], tmp_path / "shown.pdf").returncode == 0
    assert (tmp_path / "shown.pdf").read_bytes().startswith(b"%PDF")
    told = postroom.details("object-delivered")
    assert {each["transfer_syntax"] for each in told} == {str(syntax)}
    assert sum(bool(each.get("recoded")) for each in told) == (KINDS if option == "+xi" else PICTURES)


@pytest.mark.slow
def test_a_peer_that_takes_only_jpeg_gets_the_pictures_and_is_told_on(
    postroom: Postroom, ports: list[int]
) -> None:
    """It has no presentation context for the others; they are refused, each with its class."""
    (job_id,) = postroom.a_real_analysis("pacs", kinds=frozenset(ResultKind))
    taken: dict[str, bytes] = {}

    def keep(event: Event) -> int:
        taken[str(event.request.AffectedSOPInstanceUID)] = event.encoded_dataset(include_meta=False)
        return 0x0000

    entity = AE("PACS")
    for sop_class in AllStoragePresentationContexts:
        entity.add_supported_context(sop_class.abstract_syntax, [JPEGBaseline8Bit])
    server = entity.start_server((LOOPBACK, ports[0]), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    postroom.run(job_id)
    server.shutdown()
    storage = postroom.settings.storage.directory
    assert len(taken) == PICTURES
    for uid, data_set in taken.items():
        assert (storage / "results" / f"{uid}.dcm").read_bytes().endswith(data_set)
    assert len(postroom.details("object-refused")) == KINDS - PICTURES
    error = postroom.delivery(job_id).last_error or ""
    assert postroom.stage() == "failed" and error.count("no presentation context") >= 1


@pytest.mark.slow
def test_a_peer_of_every_syntax_gets_the_stored_bytes(
    postroom: Postroom, ports: list[int], tmp_path: Path
) -> None:
    (job_id,) = postroom.a_real_analysis("pacs", kinds=frozenset(ResultKind))
    with a_storescp(tmp_path / "in", ports[0]):
        postroom.run(job_id)
    assert postroom.stage() == "complete"
    assert not any(each.get("recoded") for each in postroom.details("object-delivered"))
    syntaxes = {str(dcmread(each).file_meta.TransferSyntaxUID) for each in (tmp_path / "in").iterdir()}
    assert syntaxes == {str(ExplicitVRLittleEndian), str(JPEGBaseline8Bit)}


def test_what_is_stored_stays_the_record(postroom: Postroom) -> None:
    postroom.a_real_analysis("pacs", kinds=frozenset(ResultKind))
    for path in (postroom.settings.storage.directory / "results").iterdir():
        before = path.read_bytes()
        syntax = dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
        for other in alternatives(syntax):
            dataset = dcmread(BytesIO(recoded(path, other)))
            assert f"{dataset.SOPInstanceUID}.dcm" == path.name
        assert path.read_bytes() == before


def test_a_picture_that_cannot_be_decoded_is_refused(postroom: Postroom) -> None:
    postroom.a_real_analysis("pacs", kinds=frozenset(ResultKind))
    for path in (postroom.settings.storage.directory / "results").iterdir():
        dataset = dcmread(path)
        if dataset.SOPClassUID != SecondaryCaptureImageStorage:
            continue
        dataset.PixelData = dataset.PixelData[:40]
        dataset.save_as(path)
        with pytest.raises(Refused, match="cannot be decoded"):
            recoded(path, ImplicitVRLittleEndian)


def test_nothing_is_ever_compressed() -> None:
    assert set(alternatives(JPEGBaseline8Bit)) == {ExplicitVRLittleEndian, ImplicitVRLittleEndian}
    assert alternatives(ExplicitVRLittleEndian) == (ImplicitVRLittleEndian,)
    assert alternatives("1.2.840.10008.1.2.4.90") == ()
