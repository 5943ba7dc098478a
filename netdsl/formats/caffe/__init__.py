"""Caffe's files in and out: .prototxt, the net, and .caffemodel, the net with its weights."""

from netdsl.formats.caffe.read import read_caffe
from netdsl.formats.caffe.weights import CaffeWeights
from netdsl.formats.caffe.write import write_caffe

__all__ = ["CaffeWeights", "read_caffe", "write_caffe"]
