"""From the syntax tree to nodes: chains, brackets, repeats, calls of blocks, side classifiers.

A fault is reported where it is found and the chain goes on with a tensor of unknown shape (LOST),
about which nothing more is reported than can be known without its shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from netdsl.faults import Call, OpFault, Span
from netdsl.graph import Aux
from netdsl.lang import syntax
from netdsl.lang.evaluate import Name, Unknown, evaluate, shown
from netdsl.lang.insert import bind, word_text
from netdsl.lang.nodes import Nodes
from netdsl.lang.opword import OpExpander, Use, bad_word
from netdsl.lang.program import Program
from netdsl.lang.report import Report
from netdsl.lang.scope import LOST, Double, Flow, Naming, Scope, Tensor
from netdsl.lang.words import guess, near, read_word
from netdsl.limits import Limits
from netdsl.ops import JOINS

FACTORS = {"double": Fraction(2), "halve": Fraction(1, 2)}
MOST_PENDING = 60


class Expander(OpExpander):
    """Expands chains into nodes.

    dry: looks for faults that need no shapes, in a chain that nothing reaches; adds no nodes.
    """

    def __init__(self, program: Program, report: Report, limits: Limits) -> None:
        super().__init__(program, report, Nodes(report, limits))
        self.limits = limits
        self.reached: set[str] = set()
        self.depth = 0

    # Chains and steps -----------------------------------------------------------------------

    def chain(self, chain: syntax.Chain, flow: Flow, scope: Scope) -> Flow:
        """What flows out of a chain that `flow` goes into."""
        if self.depth >= self.limits.depth:
            message = f"brackets and calls are more than {self.limits.depth} deep in each other"
            scope.fault("too-deep", message, chain.span)
            return Flow(LOST)
        self.depth += 1
        for step in chain.steps:
            flow = self._step(step, flow, scope)
        self.depth -= 1
        return flow

    def _step(self, step: syntax.Step, flow: Flow, scope: Scope) -> Flow:
        if step.repeat is None:
            flow = self._unit(step.unit, flow, scope, step.label)
        else:
            for _ in range(self._times(step.repeat, scope)):
                flow = self._unit(step.unit, flow, scope, None)
        if step.label is not None and not isinstance(step.unit, syntax.Side):
            scope.labels[step.label.name] = flow.tensor
        return flow

    def _times(self, repeat: syntax.Expression, scope: Scope) -> int:
        value = evaluate(repeat, scope.around)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, Unknown):
            return 1
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            message = f"a repeat is a whole number from 0, not {shown(value)}"
            scope.fault("wrong-value", message, repeat.span)
            return 1
        if value > self.limits.repeats:
            message = f"{value:,} repeats; the most is {self.limits.repeats:,}"
            scope.fault("too-large", message, repeat.span, "--no-limits lifts this limit")
            return 1
        return min(value, 1) if self.dry else value

    def _unit(
        self, unit: syntax.Unit, flow: Flow, scope: Scope, label: syntax.Label | None
    ) -> Flow:
        match unit:
            case syntax.Group(chain=chain):
                return self.chain(chain, flow, scope)
            case syntax.Bracket():
                return self._bracket(unit, flow, scope, label)
            case syntax.Side():
                return self._side(unit, flow, scope, label)
        return self._word(unit, flow, scope, label)

    # Brackets and side classifiers ----------------------------------------------------------

    def _bracket(
        self, bracket: syntax.Bracket, flow: Flow, scope: Scope, label: syntax.Label | None
    ) -> Flow:
        ends = [self.chain(branch, flow, scope) for branch in bracket.branches]
        # Doubles that every branch passed by unheeded go on to be heeded after the bracket.
        pending = flow.pending if all(end.pending == flow.pending for end in ends) else ()
        tensors = tuple(end.tensor for end in ends)
        if any(tensor.shape is None for tensor in tensors):
            return Flow(LOST, pending)
        op = JOINS[bracket.sign]()
        try:
            # The name is taken only by a join that fits.
            op.output(tuple(tensor.shape or () for tensor in tensors))
            name = scope.naming.name(op.head, label)
            return Flow(self.nodes.add(name, op, tensors, bracket.span, scope.trail), pending)
        except OpFault as fault:
            scope.fault(fault.code, fault.message, bracket.span, fault.help)
            return Flow(LOST, pending)

    def _side(
        self, side: syntax.Side, flow: Flow, scope: Scope, label: syntax.Label | None
    ) -> Flow:
        weight = self._weight(side, scope)
        end = self.chain(side.chain, flow, scope).tensor
        if label is not None:
            scope.labels[label.name] = end
        if end.shape is not None:
            name = scope.naming.name("aux", label)
            self.nodes.aux.append(Aux(name, weight, end.node))
        return flow

    def _weight(self, side: syntax.Side, scope: Scope) -> float:
        weight: object = 1.0
        for i, argument in enumerate(side.arguments):
            value = evaluate(argument.value, scope.around)
            if isinstance(value, Unknown):
                continue
            if (argument.name or "weight") != "weight" or i > 0:
                message = f"aux has one setting, its weight, not {len(side.arguments)}"
                if argument.name not in (None, "weight"):
                    message = f"aux has no setting `{argument.name}`"
                scope.fault("unknown-setting", message, argument.span, "as in aux(weight=0.3)")
            elif isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                message = f"weight of aux must be a number from 0, not {shown(value)}"
                scope.fault("wrong-value", message, argument.span)
            else:
                weight = value
        assert isinstance(weight, (int, float))
        return float(weight)

    # Words ----------------------------------------------------------------------------------

    def _word(
        self, call: syntax.Call, flow: Flow, scope: Scope, label: syntax.Label | None
    ) -> Flow:
        """A word is `id`, `double` or `halve`, a tensor, a block or an op, in this order."""
        text = word_text(call, scope.around)
        if text is None:
            return self._lost(call, scope)
        if call.bare and read_word(text) is None and self._is_known(text, scope):
            message = f"bare is for an op that an `every` follows, and `{text}` is none"
            scope.fault("misplaced-bare", message, call.span, "put it before the op itself")
        if text == "id" or text in FACTORS:
            if call.arguments is not None:
                scope.fault("too-many-arguments", f"`{text}` takes no arguments", call.span)
            return flow if text == "id" else self._factor(text, call.span, flow, scope)
        if call.arguments is None and scope.has(text):
            return self._named(text, call, flow, scope, label)
        if text in self.program.blocks:
            return self._call(text, call, flow, scope, label)
        spelled = read_word(text)
        if spelled is None:
            self._unknown(text, call, scope)
            return self._lost(call, scope)
        return self.op(Use(spelled, call, scope), flow, label)

    def _is_known(self, text: str, scope: Scope) -> bool:
        return text == "id" or text in FACTORS or text in self.program.blocks or scope.has(text)

    def _factor(self, text: str, span: Span, flow: Flow, scope: Scope) -> Flow:
        if len(flow.pending) >= MOST_PENDING:
            message = f"more than {MOST_PENDING} doubles and halves on the way to one op"
            scope.fault("too-large", message, span)
            return flow
        double = Double(span, FACTORS[text])
        self.passed.setdefault(span.start, (text, span))
        return Flow(flow.tensor, (*flow.pending, double))

    def _lost(self, call: syntax.Call, scope: Scope) -> Flow:
        """After a fault in a word: its arguments are still looked at."""
        for argument in call.arguments or ():
            evaluate(argument.value, scope.around)
        return Flow(LOST)

    # Names of tensors -----------------------------------------------------------------------

    def _named(
        self,
        text: str,
        call: syntax.Call,
        flow: Flow,
        scope: Scope,
        label: syntax.Label | None,
    ) -> Flow:
        """The tensor that a name stands for. A name that reads as an op is ambiguous."""
        known = text in scope.labels or text in scope.parameters
        spelled = read_word(text)
        if spelled is not None and not known:
            # The name is given later: here it can only be the op.
            return self.op(Use(spelled, call, scope), flow, label)
        if spelled is not None:
            kind = "a parameter" if text in scope.parameters else "a tensor's name"
            scope.fault(
                "ambiguous-name",
                f"`{text}` is an op and {kind} here",
                call.span,
                "give the tensor another name, or write the op with its parentheses",
            )
            return Flow(LOST)
        if text in scope.parameters:
            return Flow(self._parameter(text, call, scope))
        if text not in scope.labels:
            line = scope.given[text].span.line
            message = f"`{text}` is used before line {line} gives it"
            scope.fault("used-too-early", message, call.span)
            return Flow(LOST)
        return Flow(scope.labels[text])

    def _parameter(self, text: str, call: syntax.Call, scope: Scope) -> Tensor:
        """A tensor whose name was passed to the block."""
        value = scope.parameters[text]
        if isinstance(value, Unknown):
            return LOST
        if isinstance(value, Name) and isinstance(value.home, Scope):
            if value in value.home.labels:
                return value.home.labels[value]
            message = f"`{text}` is `{value}` here, and no tensor is called so at the call"
        else:
            message = f"`{text}` is {shown(value)} here, not a tensor"
        hint = f"{{{text}}} inserts it in a word" if isinstance(value, Name) else None
        scope.fault("unknown-name", message, call.span, hint)
        return LOST

    # Blocks ---------------------------------------------------------------------------------

    def _call(
        self,
        name: str,
        call: syntax.Call,
        flow: Flow,
        scope: Scope,
        label: syntax.Label | None,
    ) -> Flow:
        self.reached.add(name)
        block = self.program.blocks[name]
        if block is None:
            return self._lost(call, scope)
        if name in scope.stack:
            way = " -> ".join((*scope.stack[scope.stack.index(name) :], name))
            scope.fault("recursion", f"`{name}` reaches itself: {way}", call.span)
            return Flow(LOST)
        parameters = bind(block, call, scope.around)
        if self.dry:
            return Flow(LOST)
        full = scope.naming.name(name, label)
        self.nodes.blocks[full] = name
        written = f"{name}(…)" if call.arguments else name
        inner = Scope(
            Naming(f"{full}.", self.program.within[name]),
            self.report,
            parameters,
            {},
            self.program.within[name],
            (*scope.trail, Call(written, call.span)),
            (*scope.stack, name),
            scope.follows,
        )
        return self.chain(block.chain, flow, inner)

    # Words that are none --------------------------------------------------------------------

    def _unknown(self, text: str, call: syntax.Call, scope: Scope) -> None:
        if bad_word(text, call, scope):
            return
        if text in self.program.given:
            scope.fault(
                "unknown-name",
                f"`{text}` is a name outside this block",
                call.word,
                "a block sees its own names: give it the tensor as an argument",
            )
            return
        close = guess(text) or near(text, self._known(scope))
        scope.fault(
            "unknown-op",
            f"there is no op, block or tensor called `{text[:60]}`",
            call.word,
            f"did you mean `{close}`?" if close else None,
        )

    def _known(self, scope: Scope) -> Sequence[str]:
        return [*self.program.blocks, *scope.given, *scope.parameters, *FACTORS, "id"]
