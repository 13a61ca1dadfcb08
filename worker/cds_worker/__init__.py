"""Runs the bundles on closed studies and stores the results. It must never push or pull studies by itself."""
