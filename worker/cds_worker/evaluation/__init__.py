"""Measures the shipped pipeline on a labelled index, from picture to finding; never a special path."""
