"""DICOM over TLS (PS3.15 annex B): contexts, identities and certificates. It knows no association."""
