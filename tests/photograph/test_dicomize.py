"""JPEG and PNG become valid objects with the same colours, upright, and nothing of their metadata."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import ExifTags, Image, ImageCms
from pydicom.uid import (
    DermoscopicPhotographyImageStorage,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
)
from typer.testing import CliRunner

from cds_plugin import cli
from cds_plugin.decoder import Decoder
from cds_plugin.dicomize import (
    AcquisitionFacts,
    ContactMethod,
    Dicomizer,
    Facts,
    ImmersionMedia,
    Laterality,
    PatientFacts,
    Polarization,
    Sex,
    StudyFacts,
    dicomize,
    find_pictures,
)
from cds_plugin.errors import Refused
from cds_plugin.photograph import check_decodable, read_header
from cds_plugin.study import Rgb

MAX_PIXELS = 1_000_000
EVERYTHING = Facts(
    PatientFacts("P-1", "Müller^Eva", date(1970, 2, 28), Sex.FEMALE),
    StudyFacts("1.2.3.4", "S1", datetime(2024, 5, 6, 7, 8, 9), "Follow-up", "A-77"),
    AcquisitionFacts(
        body_site="back",
        laterality=Laterality.LEFT,
        pixel_spacing_mm=1 / 60,
        light_source_polarization=Polarization.POLARIZED,
        contact_method=ContactMethod.CONTACT,
        immersion_media=ImmersionMedia.ULTRASOUND_GEL,
        optical_magnification=10.0,
        manufacturer="Maker",
        manufacturer_model_name="Scope",
        device_serial_number="42",
    ),
)


@pytest.fixture
def save(tmp_path: Path, picture: Rgb) -> Callable[..., Path]:
    """Return a callable that saves `picture`, or another image, under a name."""

    def saved(name: str, image: Image.Image | None = None, **options: Any) -> Path:
        path = tmp_path / name
        (image or Image.fromarray(picture)).save(path, **options)
        return path

    return saved


Save = Callable[..., Path]


def one(decoder: Decoder, image: Path, facts: Facts | None = None) -> Path:
    """Return the object made of one picture."""
    (made,) = dicomize([image], image.parent / "out", facts, decoder=decoder)
    return made


@pytest.mark.parametrize("facts", [None, EVERYTHING])
@pytest.mark.parametrize("name", ["lesion.jpg", "lesion.png"])
def test_objects_are_valid(
    decoder: Decoder, save: Save, dciodvfy: Callable[[Path], list[str]], name: str, facts: Facts | None
) -> None:
    assert dciodvfy(one(decoder, save(name), facts)) == []


@pytest.mark.parametrize("media", list(ImmersionMedia))
@pytest.mark.parametrize("polarization", list(Polarization))
def test_every_term_is_one_of_the_standard(
    decoder: Decoder,
    save: Save,
    dciodvfy: Callable[[Path], list[str]],
    media: ImmersionMedia,
    polarization: Polarization,
) -> None:
    facts = AcquisitionFacts(
        contact_method=ContactMethod.CONTACT, immersion_media=media, light_source_polarization=polarization
    )
    assert dciodvfy(one(decoder, save("lesion.jpg"), Facts(acquisition=facts))) == []


def test_every_fact_arrives(decoder: Decoder, save: Save) -> None:
    header = read_header(one(decoder, save("lesion.jpg"), EVERYTHING))
    assert header.SOPClassUID == DermoscopicPhotographyImageStorage
    assert (header.Modality, header.PatientID, str(header.PatientName)) == ("DMS", "P-1", "Müller^Eva")
    assert (header.PatientBirthDate, header.PatientSex) == ("19700228", "F")
    assert (header.StudyInstanceUID, header.StudyID, header.AccessionNumber) == ("1.2.3.4", "S1", "A-77")
    assert (header.StudyDate, header.StudyTime, header.StudyDescription) == (
        "20240506",
        "070809",
        "Follow-up",
    )
    assert header.AnatomicRegionSequence[0].CodeMeaning == "Skin of back"
    assert header.ImageLaterality == "L"
    assert [float(each) for each in header.PixelSpacing] == pytest.approx([1 / 60, 1 / 60])
    assert (header.LightSourcePolarization, header.ContactMethod) == ("POLARIZED", "CONTACT")
    assert (header.ImmersionMedia, header.OpticalMagnificationFactor) == ("ULTRASOUND_GEL", 10)
    assert (header.Manufacturer, header.ManufacturerModelName, header.DeviceSerialNumber) == (
        "Maker",
        "Scope",
        "42",
    )
    assert header.FrameOfReferenceUID.is_valid
    assert header.PositionReferenceIndicator == ""
    check_decodable(header, MAX_PIXELS)


def test_the_facts_come_back_with_the_photograph(decoder: Decoder, save: Save) -> None:
    found = decoder.decode(one(decoder, save("lesion.png"), EVERYTHING), MAX_PIXELS)
    assert found.pixel_spacing_mm == pytest.approx((1 / 60, 1 / 60))
    assert found.acquisition.immersion_media == ("ULTRASOUND_GEL",)
    assert found.acquisition.optical_magnification == 10.0
    assert (found.acquisition.body_site, found.acquisition.laterality) == ("Skin of back", "L")


def test_png_is_exact(decoder: Decoder, save: Save, picture: Rgb) -> None:
    made = one(decoder, save("lesion.png"))
    header = read_header(made)
    assert header.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert header.LossyImageCompression == "00"
    np.testing.assert_array_equal(decoder.decode(made, MAX_PIXELS).rgb, picture)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"keep_rgb": True, "subsampling": 0}])
def test_baseline_jpeg_keeps_its_coefficients(decoder: Decoder, save: Save, options: dict[str, Any]) -> None:
    image = save("lesion.jpg", quality=90, **options)
    made = one(decoder, image)
    header = read_header(made)
    assert header.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert header.PhotometricInterpretation == ("RGB" if "keep_rgb" in options else "YBR_FULL_422")
    assert (header.LossyImageCompression, header.LossyImageCompressionMethod) == ("01", "ISO_10918_1")
    np.testing.assert_array_equal(decoder.decode(made, MAX_PIXELS).rgb, np.asarray(Image.open(image)))


def test_progressive_jpeg_is_stored_uncompressed_but_told_lossy(decoder: Decoder, save: Save) -> None:
    image = save("lesion.jpg", progressive=True)
    made = one(decoder, image)
    header = read_header(made)
    assert (header.file_meta.TransferSyntaxUID, header.LossyImageCompression) == (
        ExplicitVRLittleEndian,
        "01",
    )
    np.testing.assert_array_equal(decoder.decode(made, MAX_PIXELS).rgb, np.asarray(Image.open(image)))


@pytest.mark.parametrize("name", ["lesion.jpg", "lesion.png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(
    decoder: Decoder, save: Save, picture: Rgb, name: str, orientation: int
) -> None:
    upright = Image.fromarray(picture)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    quality = {"quality": 97, "subsampling": 0} if name.endswith("jpg") else {}
    rgb = decoder.decode(one(decoder, save(name, stored, exif=exif, **quality)), MAX_PIXELS).rgb
    assert rgb.shape == picture.shape
    assert np.abs(rgb.astype(int) - picture).mean() < 3


def test_metadata_of_the_file_stays_behind(decoder: Decoder, save: Save) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "Doctor Secret"
    made = one(decoder, save("lesion.jpg", exif=exif, comment=b"Patient Secret", xmp=b"<x>Place Secret</x>"))
    assert read_header(made).file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert b"Secret" not in made.read_bytes()


@pytest.mark.parametrize("name", ["lesion.jpg", "lesion.png"])
def test_the_colour_profile_is_carried_over(decoder: Decoder, save: Save, picture: Rgb, name: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"?XYZ").replace(b"gXYZ", b"rXYZ").replace(b"?XYZ", b"gXYZ")
    found = decoder.decode(one(decoder, save(name, icc_profile=swapped)), MAX_PIXELS)
    assert bytes(found.header.ICCProfile).rstrip(b"\0") == swapped.rstrip(b"\0")
    assert np.abs(found.rgb.astype(int) - picture[..., [1, 0, 2]]).mean() < 4


def test_pictures_that_mean_rgb(decoder: Decoder, save: Save, picture: Rgb) -> None:
    opaque = Image.fromarray(np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)]))
    palette = Image.fromarray(picture).quantize(200)
    for image in (opaque, palette):
        rgb = decoder.decode(one(decoder, save("lesion.png", image)), MAX_PIXELS).rgb
        np.testing.assert_array_equal(rgb, np.asarray(image.convert("RGB")))


def test_pictures_that_have_no_faithful_rgb(
    decoder: Decoder, save: Save, picture: Rgb, tmp_path: Path
) -> None:
    image = Image.fromarray(picture)
    see_through = np.dstack([picture, np.arange(picture[..., 0].size).reshape(picture.shape[:2]) % 256])
    frames = [Image.fromarray(picture[::-1].copy())]
    cases = {
        "not_colour": [
            save("grey.jpg", image.convert("L")),
            save("cmyk.jpg", image.convert("CMYK")),
            save("deep.png", Image.fromarray(picture[..., 0].astype(np.uint16) * 256)),
        ],
        "transparent": [save("alpha.png", Image.fromarray(see_through.astype(np.uint8)))],
        "animated": [save("moving.png", save_all=True, append_images=frames)],
        "not_a_picture": [save("lesion.gif"), save("lesion.tif")],
        "too_small": [save("thumb.png", image.resize((20, 400)))],
    }
    (tmp_path / "text.jpg").write_text("no picture")
    cases["not_a_picture"].append(tmp_path / "text.jpg")
    for code, paths in cases.items():
        for path in paths:
            with pytest.raises(Refused, match=code):
                one(decoder, path)


def test_a_giant_and_torn_pictures(decoder: Decoder, save: Save, picture: Rgb) -> None:
    giant = save("giant.png", Image.new("RGB", (5000, 5000)))
    with pytest.raises(Refused, match="too_many_pixels"):
        decoder.decode_picture(giant, MAX_PIXELS)
    for name in ("torn.jpg", "torn.png"):
        torn = save(name)
        torn.write_bytes(torn.read_bytes()[:-700])
        with pytest.raises(Refused, match="damaged_pixels"):
            one(decoder, torn)
    assert decoder.decode_picture(save("whole.png"), MAX_PIXELS).rgb.shape == picture.shape


def test_one_call_makes_one_study(decoder: Decoder, save: Save, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    images = [save("a.jpg"), save("a.png"), save("sub/A.png")]
    made = dicomize(images, tmp_path / "out", decoder=decoder)
    assert [path.name for path in made] == ["a.dcm", "a-2.dcm", "A-3.dcm"]
    headers = [read_header(path) for path in made]
    assert len({header.StudyInstanceUID for header in headers}) == 1
    assert len({header.SeriesInstanceUID for header in headers}) == 1
    assert len({header.FrameOfReferenceUID for header in headers}) == 1
    assert len({header.PatientID for header in headers}) == 1
    assert len({header.SOPInstanceUID for header in headers}) == 3
    assert [header.InstanceNumber for header in headers] == [1, 2, 3]
    (other,) = dicomize(images[:1], tmp_path / "other", decoder=decoder)
    assert read_header(other).PatientID != headers[0].PatientID


def test_a_refused_picture_does_not_end_a_study(decoder: Decoder, save: Save, tmp_path: Path) -> None:
    study = Dicomizer(tmp_path / "out", decoder)
    first = study.add(save("a.jpg"))
    with pytest.raises(Refused):
        study.add(save("b.gif"))
    second = study.add(save("c.png"), stem="named")
    assert second.name == "named.dcm"
    assert (
        read_header(first).StudyInstanceUID
        == read_header(second).StudyInstanceUID
        == study.study_instance_uid
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: PatientFacts("x" * 65),
        lambda: PatientFacts("a\\b"),
        lambda: StudyFacts("1.2.x"),
        lambda: StudyFacts(id="x" * 17),
        lambda: AcquisitionFacts(pixel_spacing_mm=0),
        lambda: AcquisitionFacts(pixel_spacing_mm=float("nan")),
        lambda: AcquisitionFacts(optical_magnification=-1),
        lambda: AcquisitionFacts(body_site="moon"),
        lambda: AcquisitionFacts(immersion_media=ImmersionMedia.ALCOHOL),
    ],
)
def test_facts_that_do_not_fit(make: Callable[[], object]) -> None:
    with pytest.raises(Refused, match="bad_fact"):
        make()


def test_folders_are_searched(save: Save, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    found = [save("b.JPG", format="JPEG"), save("sub/a.png"), save("c.gif")]
    assert list(find_pictures([tmp_path])) == found[:2]
    assert list(find_pictures([found[2]])) == found[2:]


def test_the_command(save: Save, tmp_path: Path, picture: Rgb) -> None:
    good, bad = save("lesion.png"), save("grey.png", Image.fromarray(picture[..., 0]))
    options = ["--out", str(tmp_path / "out"), "--patient-id", "P9", "--pixel-spacing", "0.02", "--json"]
    done = CliRunner().invoke(cli.build("dicomize"), ["dicomize", str(good), str(bad), *options])
    assert done.exit_code == 1
    made, refused = (json.loads(line) for line in done.stdout.splitlines())
    header = pydicom.dcmread(made["output"])
    assert (header.PatientID, header.SOPInstanceUID) == ("P9", made["sop_instance_uid"])
    assert refused["input"] == str(bad)
    assert refused["error"]["code"] == "not_colour"


def test_the_jpeg_within_ends_where_the_picture_ends(decoder: Decoder, save: Save) -> None:
    image = save("lesion.jpg")
    trailer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(trailer, "JPEG")
    whole = image.read_bytes()
    image.write_bytes(whole + trailer.getvalue() + b"trailing secrets")
    made = one(decoder, image)
    assert b"secrets" not in made.read_bytes()
    np.testing.assert_array_equal(
        decoder.decode(made, MAX_PIXELS).rgb, np.asarray(Image.open(io.BytesIO(whole)))
    )
