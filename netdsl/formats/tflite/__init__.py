"""TensorFlow Lite's models (.tflite), which LiteRT runs: written."""

from netdsl.formats.tflite.write import model_of, write_tflite

__all__ = ["model_of", "write_tflite"]
