"""Data to train on: MNIST-style idx files, folders of pictures, arrays, CIFAR, sets by name."""

from netdsl.train.data.augment import Augment
from netdsl.train.data.batches import Batches
from netdsl.train.data.examples import Data, Examples
from netdsl.train.data.read import open_data

__all__ = ["Augment", "Batches", "Data", "Examples", "open_data"]
