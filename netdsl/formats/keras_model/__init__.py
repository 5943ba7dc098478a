"""Graphs written as Python source for Keras 3."""

from netdsl.formats.keras_model.write import keras_source, write_keras

__all__ = ["keras_source", "write_keras"]
