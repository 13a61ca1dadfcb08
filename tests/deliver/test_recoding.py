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
from postroom import Postroom, a_storescp
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from cds_plugin.deliver.recoding import alternatives, recoded
from cds_plugin.errors import Refused

OVERLAY = "1.2.840.10008.5.1.4.1.1.7"
IMAGE_ELEMENTS = ("PhotometricInterpretation", "PlanarConfiguration", "PixelData")


def without_pixels(dataset: Dataset) -> Dataset:
    """Return the data set without what decoding an overlay changes."""
    rest = Dataset()
    rest.update(dataset)
    if dataset.SOPClassUID == OVERLAY:
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
    (job_id,) = postroom.a_real_analysis("pacs")
    with a_storescp(tmp_path / "in", ports[0], option):
        postroom.run(job_id)
    assert postroom.stage() == "complete", postroom.delivery(job_id).last_error
    storage = postroom.settings.storage.directory
    arrived = [(path, dcmread(path)) for path in (tmp_path / "in").iterdir()]
    assert len(arrived) == 3
    for path, back in arrived:
        sent = dcmread(storage / "results" / f"{back.SOPInstanceUID}.dcm")
        assert back.file_meta.TransferSyntaxUID == syntax
        assert in_one_encoding(without_pixels(back)) == in_one_encoding(without_pixels(sent))
        assert dciodvfy(path) == []
        if back.SOPClassUID == OVERLAY:
            assert sent.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
            assert (back.PhotometricInterpretation, back.PlanarConfiguration) == ("RGB", 0)
            assert back.LossyImageCompression == "01"
            assert np.array_equal(back.pixel_array, picture_of(sent))
    (segmentation,) = [path for path, back in arrived if back.Modality == "SEG"]
    assert len(hd.seg.segread(segmentation).segment_numbers) == 2
    (report,) = [path for path, back in arrived if back.Modality == "SR"]
    assert dcmtk("dsrdump", report).returncode == 0
    told = postroom.details("object-delivered")
    assert {each["transfer_syntax"] for each in told} == {str(syntax)}
    assert sum(bool(each.get("recoded")) for each in told) == (3 if option == "+xi" else 1)


@pytest.mark.slow
def test_a_peer_of_every_syntax_gets_the_stored_bytes(
    postroom: Postroom, ports: list[int], tmp_path: Path
) -> None:
    (job_id,) = postroom.a_real_analysis("pacs")
    with a_storescp(tmp_path / "in", ports[0]):
        postroom.run(job_id)
    assert postroom.stage() == "complete"
    assert not any(each.get("recoded") for each in postroom.details("object-delivered"))
    syntaxes = {str(dcmread(each).file_meta.TransferSyntaxUID) for each in (tmp_path / "in").iterdir()}
    assert syntaxes == {str(ExplicitVRLittleEndian), str(JPEGBaseline8Bit)}


def test_what_is_stored_stays_the_record(postroom: Postroom) -> None:
    postroom.a_real_analysis("pacs")
    for path in (postroom.settings.storage.directory / "results").iterdir():
        before = path.read_bytes()
        syntax = dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
        for other in alternatives(syntax):
            dataset = dcmread(BytesIO(recoded(path, other)))
            assert f"{dataset.SOPInstanceUID}.dcm" == path.name
        assert path.read_bytes() == before


def test_a_picture_that_cannot_be_decoded_is_refused(postroom: Postroom) -> None:
    postroom.a_real_analysis("pacs")
    for path in (postroom.settings.storage.directory / "results").iterdir():
        dataset = dcmread(path)
        if dataset.SOPClassUID != OVERLAY:
            continue
        dataset.PixelData = dataset.PixelData[:40]
        dataset.save_as(path)
        with pytest.raises(Refused, match="cannot be decoded"):
            recoded(path, ImplicitVRLittleEndian)


def test_nothing_is_ever_compressed() -> None:
    assert set(alternatives(JPEGBaseline8Bit)) == {ExplicitVRLittleEndian, ImplicitVRLittleEndian}
    assert alternatives(ExplicitVRLittleEndian) == (ImplicitVRLittleEndian,)
    assert alternatives("1.2.840.10008.1.2.4.90") == ()
