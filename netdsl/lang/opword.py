"""An op word with its arguments becomes a node, and the chain of its `every` follows."""

from __future__ import annotations

from netdsl.faults import OpFault, Span
from netdsl.lang import syntax
from netdsl.lang.evaluate import Unknown, evaluate, plain, shown
from netdsl.lang.insert import place
from netdsl.lang.limits import Limits
from netdsl.lang.nodes import Nodes
from netdsl.lang.program import Program
from netdsl.lang.report import Report
from netdsl.lang.scope import LOST, Double, Flow, Scope, Tensor
from netdsl.lang.words import Spelled, read_word
from netdsl.ops import Op, Word, build, gives_filters, spelling, takes_filters
from netdsl.ops import bind as bind_word
from netdsl.ops.base import Value

SHAPELESS = ("bool", "float", "name")
"""Kinds of settings that no shape depends on."""


class OpExpander:
    """The part of the expander that knows ops."""

    limits: Limits

    def __init__(self, program: Program, report: Report, nodes: Nodes) -> None:
        self.program = program
        self.report = report
        self.nodes = nodes
        self.dry = False
        self.passed: dict[int, tuple[str, Span]] = {}
        self.heeded: set[int] = set()
        self.used_every: set[str] = set()
        self.defaults: dict[str, dict[str, Value]] = {}

    def chain(self, chain: syntax.Chain, flow: Flow, scope: Scope) -> Flow:
        raise NotImplementedError

    def op(
        self,
        text: str,
        call: syntax.Call,
        flow: Flow,
        scope: Scope,
        label: syntax.Label | None,
    ) -> Flow:
        """The op that a word spells, and its followers."""
        spelled = read_word(text)
        assert spelled is not None
        word = self._checked_word(spelled, call, scope)
        if word is None:
            return self._follow(spelled.head, call, Flow(LOST), scope)
        pending = self._heed(word, flow)
        tensor = flow.tensor
        if tensor.shape is None:
            self._check(word, call, spelled, scope)
            result = self._shape_alone(word)
        else:
            result = self._build(word, call, spelled, flow, scope, label)
        return self._follow(word.head, call, Flow(result, pending), scope)

    def _follow(self, head: str, call: syntax.Call, flow: Flow, scope: Scope) -> Flow:
        """The chain that an `every` says follows each op of this head."""
        every = None if scope.follows or call.bare else self.program.every.get(head)
        if every is None:
            return flow
        self.used_every.add(head)
        if every.chain is None or self.dry:
            return flow
        return self.chain(every.chain, flow, scope.of_every())

    def _heed(self, word: Word, flow: Flow) -> tuple[Double, ...]:
        """Which doubles go on after this op. One with its filters given heeds none."""
        if not flow.pending or not takes_filters(word.head):
            return flow.pending
        if not gives_filters(word):
            self.heeded.update(double.span.start for double in flow.pending)
        return ()

    # The word -------------------------------------------------------------------------------

    def _checked_word(self, spelled: Spelled, call: syntax.Call, scope: Scope) -> Word | None:
        if spelled.twice is not None:
            span = place(call, spelled.places, spelled.twice, scope.around)
            scope.fault("given-twice", f"`{spelled.twice}` is given twice", span)
        numbers = [*(spelled.kernel or ()), *(n for v in spelled.options.values() for n in v)]
        if max(numbers, default=0) > self.limits.number:
            number = max(numbers)
            message = f"{_big(number)} is too large a number; the most is {self.limits.number:,}"
            scope.fault("too-large", message, call.word)
            return None
        return self._word_of(spelled, call, scope)

    def _word_of(self, spelled: Spelled, call: syntax.Call, scope: Scope) -> Word | None:
        """The word with its arguments' values, and the defaults of its `every`."""
        arguments: list[Value] = []
        settings: dict[str, Value] = {}
        known = spelled.twice is None
        for argument in call.arguments or ():
            value = evaluate(argument.value, scope.around)
            if isinstance(value, Unknown):
                known = False
            elif argument.name is None:
                arguments.append(plain(value))
            elif argument.name in settings:
                message = f"{spelled.head} is given {argument.name} twice"
                scope.fault("given-twice", message, argument.span)
            else:
                settings[argument.name] = plain(value)
        if not known:
            return None
        defaults = {} if scope.follows else self.defaults.get(spelled.head, {})
        if defaults:
            positional = [s.name for s in spelling(spelled.head).settings if s.positional]
            taken = positional[: len(arguments)]
            settings = {n: v for n, v in defaults.items() if n not in taken} | settings
        return Word(spelled.head, spelled.kernel, spelled.options, tuple(arguments), settings)

    # The op ---------------------------------------------------------------------------------

    def _build(
        self,
        word: Word,
        call: syntax.Call,
        spelled: Spelled,
        flow: Flow,
        scope: Scope,
        label: syntax.Label | None,
    ) -> Tensor:
        shape = flow.tensor.shape
        assert shape is not None
        try:
            op: Op = build(word, (shape,), flow.width)
        except OpFault as fault:
            self._report(fault, call, spelled, scope)
            return self._despite(fault, word, call, spelled, flow, scope)
        name = scope.naming.name(op.head, label)
        return self.nodes.add(name, op, (flow.tensor,), call.span, scope.trail)

    def _report(self, fault: OpFault, call: syntax.Call, spelled: Spelled, scope: Scope) -> None:
        span = place(call, spelled.places, fault.part, scope.around)
        if fault.code == "wrong-value" and fault.help is None:
            fault.help = _no_parameter(call, span, scope)
        self.report.op(fault, span, scope.trail)

    def _despite(
        self,
        fault: OpFault,
        word: Word,
        call: syntax.Call,
        spelled: Spelled,
        flow: Flow,
        scope: Scope,
    ) -> Tensor:
        """The shape that the op gives without its faulty setting, where that changes no shape."""
        rest = _without(word, fault.part)
        if rest is None or flow.tensor.shape is None:
            return LOST
        try:
            op = build(rest, (flow.tensor.shape,), flow.width)
            return Tensor("", op.output((flow.tensor.shape,)))
        except OpFault as another:
            self._report(another, call, spelled, scope)
            return LOST

    def _check(self, word: Word, call: syntax.Call, spelled: Spelled, scope: Scope) -> None:
        """Faults of a word that can be told without its input's shape."""
        try:
            bind_word(word)
        except OpFault as fault:
            self._report(fault, call, spelled, scope)

    def _shape_alone(self, word: Word) -> Tensor:
        """fc(N) gives N numbers, whatever comes in."""
        if word.head == "fc" and word.arguments and type(word.arguments[0]) is int:
            return Tensor("", (max(word.arguments[0], 1),))
        return LOST

    # every ----------------------------------------------------------------------------------

    def read_defaults(self, scope: Scope) -> None:
        """Checks the file's `every` lines, and keeps their default arguments by name."""
        for every in self.program.every.values():
            head = self._every_head(every, scope)
            if head is None:
                continue
            if every.chain is None and not every.word.arguments:
                message = f"`every {head}` says neither defaults nor what follows"
                scope.fault("empty-every", message, every.span, f"as in every {head} -> relu")
            spelled = Spelled(head, (1,) if spelling(head).required else None, {}, {})
            word = self._word_of(spelled, every.word, scope)
            if word is None:
                continue
            try:
                bind_word(word)
            except OpFault as fault:
                self._report(fault, every.word, spelled, scope)
                continue
            positional = [s.name for s in spelling(head).settings if s.positional]
            named = dict(zip(positional, word.arguments, strict=False))
            self.defaults[head] = {**named, **word.settings}

    def _every_head(self, every: syntax.Every, scope: Scope) -> str | None:
        text = every.word.plain
        spelled = read_word(text) if text is not None else None
        if spelled is not None and spelled.kernel is None and not spelled.options:
            return spelled.head
        hint = None
        if spelled is not None:
            hint = f"write `every {spelled.head}`"
        message = f"every takes the head of an op, not `{every.word.word.text[:60]}`"
        scope.fault("unknown-op", message, every.word.word, hint)
        return None

    def bad_word(self, text: str, call: syntax.Call, scope: Scope) -> bool:
        """Reports a word that begins as an op's and goes wrong after its head."""
        end = next((n for n in range(len(text), 1, -1) if read_word(text[:n])), 0)
        begins = read_word(text[:end])
        rest = text[end:]
        if begins is None or (
            end == len(begins.head) and rest[:1].isalpha() and rest not in "spdg"
        ):
            return False
        span = place(call, {"rest": (end, len(text))}, "rest", scope.around)
        if rest in ("s", "p", "d", "g", "x"):
            after = "kernel size" if rest == "x" else "number"
            message, hint = f"a {after} is missing after `{text}`", f"as in {text}2"
        else:
            message = f"`{rest}` in `{text}` is no option of {begins.head}"
            hint = "options are sN, pN, dN, gN, same and ceil, after the kernel"
        scope.fault("unknown-option", message, span, hint)
        return True


def _no_parameter(call: syntax.Call, span: Span, scope: Scope) -> str | None:
    """A hint where the value that a setting refuses is a name that no parameter has."""
    for argument in call.arguments or ():
        value = argument.value
        if argument.span is not span or not isinstance(value, syntax.Reference):
            continue
        if value.name not in scope.parameters:
            return f"no parameter is called `{value.name}` here"
    return None


def _without(word: Word, part: str | None) -> Word | None:
    """The word without a faulty setting that no shape depends on; None where one might."""
    kind, _, which = (part or "").partition(":")
    declared = spelling(word.head).settings
    if kind == "argument":
        places = [s for s in declared if s.positional]
        index = int(which)
        if index >= len(places):
            return Word(word.head, word.kernel, word.options, word.arguments[:index], word.settings)
        if places[index].kind not in SHAPELESS:
            return None
        return Word(word.head, word.kernel, word.options, word.arguments[:index], word.settings)
    if kind != "setting" or which not in word.settings:
        return None
    found = next((s for s in declared if s.name == which), None)
    unknown_may_matter = found is None and takes_filters(word.head) and not gives_filters(word)
    if unknown_may_matter or (found is not None and found.kind not in SHAPELESS):
        return None
    rest = {name: value for name, value in word.settings.items() if name != which}
    return Word(word.head, word.kernel, word.options, word.arguments, rest)


def _big(number: int) -> str:
    return f"{number:,}" if number < 10**18 else shown("a number of 18 digits or more")
