"""Studies out of dcmtk's dcmqrscp, whose C-FIND, C-GET and C-MOVE nobody here wrote."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from clinic import NAME, documents
from drawn_objects import VL_PHOTOGRAPHIC, a_photograph, written
from parts import settings_file
from pydicom.uid import generate_uid
from typer.testing import CliRunner
from ward import AE_TITLE, LOOPBACK, Ward

from cds_plugin.cli import build
from cds_plugin.demo.ports import free_ports
from cds_plugin.reach import port_is_open

pytestmark = pytest.mark.slow

Dcmtk = Callable[..., subprocess.CompletedProcess[str]]
START_SECONDS = 30.0


@contextmanager
def a_dcmqrscp(folder: Path, listener_port: int) -> Iterator[int]:
    """Yield the port of a running dcmqrscp with one storage area, which knows our listener."""
    (port,) = free_ports(1)
    area = folder / "area"
    area.mkdir()
    config = folder / "dcmqrscp.cfg"
    config.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        f"HostTable BEGIN\ncds = ({AE_TITLE}, {LOOPBACK}, {listener_port})\nHostTable END\n"
        f"VendorTable BEGIN\nVendorTable END\nAETable BEGIN\nDCMTK {area} RW (100, 1024mb) ANY\nAETable END\n"
    )
    command = ["dcmqrscp", "-c", str(config)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + START_SECONDS
        while not port_is_open(LOOPBACK, port) and time.monotonic() < deadline:
            time.sleep(0.05)
        try:
            yield port
        finally:
            server.terminate()


@pytest.mark.parametrize("way", ["c-get", "c-move"])
def test_a_day_comes_out_of_dcmqrscp(ward: Ward, tmp_path: Path, dcmtk: Dcmtk, way: str) -> None:
    studies = [generate_uid(), generate_uid()]
    files = []
    for number, study in enumerate((studies[0], studies[0], studies[1])):
        picture = a_photograph(study, sop_class=VL_PHOTOGRAPHIC, seed=number)
        picture.StudyDate = "20240229"
        files.append(written(picture, tmp_path / f"{number}.dcm"))
    with ExitStack() as running:
        port = running.enter_context(a_dcmqrscp(tmp_path, ward.port))
        if way == "c-move":
            running.enter_context(ward.listening())
        assert dcmtk("storescu", "-aec", "DCMTK", LOOPBACK, port, *files).returncode == 0
        peer = (
            f'[[peers]]\nname = "{NAME}"\nae_title = "DCMTK"\nhost = "{LOOPBACK}"\nport = {port}\n'
            f'retrieve = "{way}"\n'
        )
        config = settings_file(ward, tmp_path, peer)
        words = ["pull", "--config", str(config), "--from", NAME, "--since", "2024-02-29", "--json"]
        first, again = (documents(CliRunner().invoke(build("pull"), words)) for _ in range(2))
    assert sorted((each["state"], each["fetched"]) for each in first) == [("complete", 1), ("complete", 2)]
    assert [each["fetched"] for each in again] == [0, 0]
    assert len(ward.instances()) == 3 and {each.calling_ae for each in ward.instances()} == {"DCMTK"}
