"""The commands `worker`, `analyze` and `evaluate`; importing them loads no model library."""
