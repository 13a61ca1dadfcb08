"""Bytes in, closed studies out: listener, spool, admission, closing, sweep. It must never run a model."""
