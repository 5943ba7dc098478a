"""The engines that are compared, a class each. A peer is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from netdsl.bench.case import Case, Floats
from netdsl.bench.engine import Engine, Outputs, Run, Unfit
from netdsl.faults import NetError
from netdsl.graph import Graph
from netdsl.runner import COMPUTES


class Ours(Engine):
    """This package's CPU engine."""

    name = package = "netdsl"
    precisions = COMPUTES["cpu"]

    @classmethod
    def load(cls, case: Case) -> Run:
        plan, inputs, names = case.runner().plan, case.inputs, case.graph.outputs
        assert plan is not None
        return lambda: [found[name] for found in [plan.run(inputs)] for name in names]


class OnnxRuntime(Engine):
    """onnxruntime's CPU provider, all optimisations, the batch fixed."""

    name = package = "onnxruntime"

    @classmethod
    def load(cls, case: Case) -> Run:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = case.threads, 1
        options.log_severity_level = 3
        options.add_free_dimension_override_by_name("N", case.batch)
        session = onnxruntime.InferenceSession(
            str(case.onnx), options, providers=["CPUExecutionProvider"]
        )
        names, inputs = list(case.graph.outputs), case.inputs
        return lambda: list(session.run(names, inputs))


class OpenVino(Engine):
    """OpenVINO's CPU device. Left alone it computes in bfloat16 where a CPU can."""

    name = package = "openvino"
    precisions = ("fp32", "bf16")

    @classmethod
    def load(cls, case: Case) -> Run:
        openvino = importlib.import_module("openvino")
        core = openvino.Core()
        model = core.read_model(case.onnx)
        model.reshape({name: list(x.shape) for name, x in case.inputs.items()})
        settings = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[case.precision],
            "INFERENCE_NUM_THREADS": str(case.threads),
            "PERFORMANCE_HINT": "LATENCY",
        }
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        names, inputs = case.graph.outputs, case.inputs

        def run() -> Outputs:
            found = request.infer(inputs)
            return [found[name] for name in names]

        return run


class Ncnn(Engine):
    """ncnn, convolutions and activations fused, a sample at a time."""

    name = package = "ncnn"
    precisions = ("fp32", "bf16")

    @classmethod
    def load(cls, case: Case) -> Run:
        from netdsl.bench.ncnn_net import write

        ncnn = importlib.import_module("ncnn")
        written = write(case.graph, case.weights, case.folder)
        net = ncnn.Net()
        net.opt.num_threads = case.threads
        for setting in dir(net.opt):
            if setting.startswith(("use_fp16", "use_bf16", "use_int8", "use_vulkan")):
                setattr(net.opt, setting, False)
        net.opt.use_bf16_storage = case.precision == "bf16"
        if net.load_param(str(written.param)) or net.load_model(str(written.model)):
            raise Unfit("ncnn does not load the net")
        rows = [{name: x[i] for name, x in case.inputs.items()} for i in range(case.batch)]
        shapes = [case.graph[name].shape for name in case.graph.outputs]

        def sample(row: dict[str, NDArray[Any]]) -> Outputs:
            extractor = net.create_extractor()
            for name, x in row.items():
                extractor.input(written.blobs[name], ncnn.Mat(x))
            found = (extractor.extract(written.blobs[name])[1] for name in case.graph.outputs)
            return [np.array(mat).reshape(shape) for mat, shape in zip(found, shapes, strict=True)]

        return lambda: [np.stack(parts) for parts in zip(*map(sample, rows), strict=True)]


class LiteRt(Engine):
    """LiteRT, once TensorFlow Lite, with XNNPACK as it comes; batch fixed, channels last."""

    name = "litert"
    package = "ai_edge_litert"

    @classmethod
    def load(cls, case: Case) -> Run:
        from netdsl.formats.tflite import model_of

        interpreter = importlib.import_module("ai_edge_litert.interpreter")
        try:
            model = b"".join(model_of(case.graph, case.weights, case.batch))
        except NetError as fault:
            raise Unfit(" ".join(str(fault).split())) from None
        net = interpreter.Interpreter(model_content=model, num_threads=case.threads)
        net.allocate_tensors()
        given = zip(net.get_input_details(), case.graph.inputs, strict=True)
        inputs = {at["index"]: _last(case.inputs[name], at["shape"]) for at, name in given}
        shapes = [(case.batch, *case.graph[name].shape) for name in case.graph.outputs]
        outputs = [d["index"] for d in net.get_output_details()]

        def run() -> Outputs:
            for index, x in inputs.items():
                net.set_tensor(index, x)
            net.invoke()
            found = (np.moveaxis(net.get_tensor(index), -1, 1) for index in outputs)
            return [x.reshape(shape) for x, shape in zip(found, shapes, strict=True)]

        return run


def _last(x: Floats, shape: NDArray[Any]) -> Floats:
    """An array with its channels last, in a shape that may have a height of 1 besides."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)).reshape(shape)


class Torch(Engine):
    """PyTorch, op by op."""

    name = "torch"
    package = "torch"
    precisions: ClassVar[tuple[str, ...]] = ("fp32", "bf16")
    channels_last: ClassVar[bool] = False

    @classmethod
    def load(cls, case: Case) -> Run:
        import torch

        torch.set_num_threads(case.threads)
        net, layout = cls.module(case.graph, case.weights)
        forward = cls.prepared(net.eval())
        inputs = {name: torch.from_numpy(x) for name, x in case.inputs.items()}
        less = case.precision == "bf16"

        def run() -> Outputs:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=less):
                given = {n: x.contiguous(memory_format=layout) for n, x in inputs.items()}
                return [y.float().numpy() for y in forward(given)]

        return run

    @classmethod
    def module(cls, graph: Graph, weights: Mapping[str, Floats]) -> tuple[Any, Any]:
        """The net as a module, and the memory format of its inputs. Raises Unfit."""
        import torch

        from netdsl.bench.torch_net import TorchNet

        net = TorchNet(graph, weights)
        if not cls.channels_last:
            return net, torch.contiguous_format
        ranks = {len(graph[name].shape) + 1 for name in graph.inputs}
        if ranks not in ({4}, {5}):
            raise Unfit("channels_last is for pictures and volumes")
        layout = torch.channels_last if ranks == {4} else torch.channels_last_3d
        net.to_layout(layout)
        return net, layout

    @classmethod
    def prepared(cls, net: Any) -> Any:
        """The module as it is called."""
        return net


class TorchChannelsLast(Torch):
    """PyTorch with channels innermost, its better layout for convolutions."""

    name = "torch channels_last"
    channels_last = True


class TorchCompile(Torch):
    """PyTorch compiled by Inductor, which needs a C++ compiler."""

    name = "torch compile"

    @classmethod
    def prepared(cls, net: Any) -> Any:
        import torch

        return torch.compile(net)


OURS = Ours
PEERS: dict[str, tuple[type[Engine], ...]] = {
    "onnxruntime": (OnnxRuntime,),
    "openvino": (OpenVino,),
    "ncnn": (Ncnn,),
    "litert": (LiteRt,),
    "torch": (Torch, TorchChannelsLast),
    "torch-compile": (TorchCompile,),
}
"""What --against takes, and the engines it stands for."""
