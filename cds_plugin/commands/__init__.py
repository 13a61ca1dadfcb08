"""The commands of the base install, one module each; each exposes `command`."""
