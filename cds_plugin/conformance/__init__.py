"""The DICOM conformance statement (PS3.2 annex N), written from the tables that the code uses."""
