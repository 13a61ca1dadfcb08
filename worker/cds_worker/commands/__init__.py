"""The commands that need the models; each module exposes `command`."""
