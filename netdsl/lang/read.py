"""From a text to a graph, or to everything that is wrong with it."""

from __future__ import annotations

from netdsl.faults import Fault, NetError, Source, Span
from netdsl.frozen import dataclass
from netdsl.graph import Graph
from netdsl.lang import header, syntax
from netdsl.lang.count import Counter
from netdsl.lang.evaluate import UNKNOWN
from netdsl.lang.expand import Expander
from netdsl.lang.parse import parse
from netdsl.lang.program import Program, gather
from netdsl.lang.report import Full, Report
from netdsl.lang.scope import LOST, Flow, Naming, Scope, Tensor
from netdsl.lang.warn import warn
from netdsl.limits import DEFAULT, LIFTED, Limits


@dataclass(frozen=True)
class Result:
    """A graph, or None when there are errors; and all faults, warnings among them."""

    graph: Graph | None
    faults: tuple[Fault, ...]


def load(text: str, file: str | None = None, limits: Limits | None = DEFAULT) -> Graph:
    """The graph that a text means. Raises NetError with all its errors.

    limits: how large it may be; None lifts what can be lifted.
    """
    result = read(text, file, limits)
    if result.graph is None:
        raise NetError(*(fault for fault in result.faults if fault.severity == "error"))
    return result.graph


def read(text: str, file: str | None = None, limits: Limits | None = DEFAULT) -> Result:
    """The graph that a text means, and its faults. Bad text never raises."""
    limits = LIFTED if limits is None else limits
    refused = _refuse(text, file, limits)
    if refused is not None:
        return Result(None, (refused,))
    parsed = parse(text, file, limits)
    report = Report(parsed.source, limits.faults)
    try:
        for fault in parsed.faults:
            report.add(fault)
        graph = Reader(parsed, report, limits).graph()
    except Full:
        graph = None
    except RecursionError:
        report.add(Fault("too-deep", "blocks and brackets are too deep in each other", file=file))
        graph = None
    return Result(None if report.errors else graph, report.sorted())


def _refuse(text: str, file: str | None, limits: Limits) -> Fault | None:
    """What makes a text not worth reading."""
    source = Source(text, file)
    size = len(text) if len(text) > limits.file else len(text.encode("utf-8", "replace"))
    if size > limits.file:
        message = f"the text has {size:,} bytes; the most is {limits.file:,}"
        return Fault("too-large", message, None, "--no-limits lifts this limit", file=file)
    at = text.find("\0")
    if at >= 0:
        message = "this is not text: it holds a zero byte"
        return Fault("not-text", message, Span(source, at, at + 1), file=file)
    return None


class Reader:
    """One text on its way to a graph."""

    def __init__(self, file: syntax.File, report: Report, limits: Limits) -> None:
        self.file = file
        self.report = report
        self.limits = limits
        self.program: Program = gather(file, report)
        self.expander = Expander(self.program, report, limits)
        given = self.program.given
        self.scope = Scope(Naming("", given), report, given=given)
        self.inputs: list[str] = []

    def graph(self) -> Graph | None:
        """The graph, as far as it goes. Raises Full."""
        labels = header.class_names(self.program, self.report)
        facts = header.facts(self.program, self.report)
        self.expander.read_defaults(self.scope)
        last = self._flow()
        self._unreached()
        outputs = self._outputs(last)
        if self.report.errors:
            return None
        nodes = self.expander.nodes
        graph = Graph(
            name=header.net_name(self.program, self.file.source.file),
            nodes=tuple(nodes.nodes),
            inputs=tuple(self.inputs),
            outputs=tuple(tensor.node for tensor in outputs),
            aux=tuple(nodes.aux),
            labels=labels,
            meta=facts,
            blocks=nodes.blocks,
            names={name: tensor.node for name, tensor in self.scope.labels.items()},
            file=self.file.source.file,
        )
        warn(graph, self.program, self.expander, self.report)
        return graph

    def _flow(self) -> Tensor:
        """Expands inputs and lines in order; gives the last line's result."""
        self.expander.dry = not self._fits()
        flow = None
        lines = 0
        for statement in self.program.flow:
            match statement:
                case syntax.InputLine():
                    flow = Flow(self._input(statement))
                case syntax.Line(chain=chain):
                    flow = self.expander.chain(chain, flow or self._no_input(), self.scope)
                    lines += 1
                case syntax.Broken():
                    flow = Flow(LOST)
                    self.scope.labels.update(dict.fromkeys(statement.labels, LOST))
                    lines += 1
        flow = flow or self._no_input()
        if not lines:
            self._no_line()
        return flow.tensor

    def _fits(self) -> bool:
        """Whether the net is small enough to expand; reports the line at which it is not."""
        counter = Counter(self.program, self.limits)
        total = 0
        for statement in self.program.flow:
            if isinstance(statement, syntax.Line):
                total += counter.line(statement.chain)
                if total > self.limits.nodes or counter.exhausted:
                    # Digits of a number that nobody needs take long to write.
                    count = f"{total:,}" if total < 10**18 else "over a million million million"
                    message = f"up to this line the net has {count} ops"
                    hint = f"the most is {self.limits.nodes:,}; --no-limits lifts this limit"
                    self.report.error("too-large", message, statement.span, hint)
                    return False
        return True

    def _input(self, line: syntax.InputLine) -> Tensor:
        name = line.label.name if line.label is not None else "input"
        op = header.input_op(line, self.report)
        tensor = LOST
        if op is not None:
            tensor = self.expander.nodes.add(name, op, (), line.span)
            self.inputs.append(name)
        self.scope.naming.taken.add(name)
        if line.label is not None:
            self.scope.labels[name] = tensor
        return tensor

    def _no_input(self) -> Flow:
        """Reports that a first line has nothing to go on from."""
        line = next((s for s in self.program.flow if isinstance(s, syntax.Line)), None)
        later = any(isinstance(s, syntax.InputLine) for s in self.program.flow)
        message = "no input stands above this line" if later else "the net has no input"
        hint = "write its shape before the first line, as in input 3x224x224"
        span = line.span if line is not None else None
        self.report.add(Fault("no-input", message, span, hint, file=self.file.source.file))
        return Flow(LOST)

    def _no_line(self) -> None:
        if self.report.errors and not self.program.flow:
            return
        message = "the net has no layers"
        self.report.add(Fault("no-layers", message, None, file=self.file.source.file))

    def _unreached(self) -> None:
        """Looks for faults in blocks and `every` chains that no line reaches."""
        self.expander.dry = True
        for name, block in self.program.blocks.items():
            if block is None or name in self.expander.reached:
                continue
            reached = set(self.expander.reached)
            parameters = {parameter.name: UNKNOWN for parameter in block.parameters}
            given = self.program.within[name]
            naming = Naming(f"{name}.", given)
            scope = Scope(naming, self.report, parameters, given=given, stack=(name,))
            self.expander.chain(block.chain, Flow(LOST), scope)
            self.expander.reached = reached
        for head, every in self.program.every.items():
            if every.chain is not None and head not in self.expander.used_every:
                self.expander.chain(every.chain, Flow(LOST), self.scope.of_every(head))
        self.expander.dry = False

    def _outputs(self, last: Tensor) -> tuple[Tensor, ...]:
        if self.program.output is None:
            return (last,)
        return header.outputs(self.program, self.scope.labels, self.report)
