"""Receives dermoscopy studies, closes them, builds and delivers their results.

It must never import a network or run a model: that is the worker's room.
"""
