"""The MONAI bundles' code: data index, networks, training, evaluation and predictors.

The only home of networks and of training in this project. It must never import the listener, the worker or
the database, and never reach for the network when a predictor is built.
"""
