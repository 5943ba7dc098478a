"""An op word with its arguments becomes a node, and the chain of its `every` follows."""

from __future__ import annotations

from abc import ABC, abstractmethod

from netdsl.faults import OpFault, Span
from netdsl.frozen import dataclass
from netdsl.lang import syntax
from netdsl.lang.evaluate import Unknown, evaluate, plain
from netdsl.lang.insert import place
from netdsl.lang.nodes import Nodes
from netdsl.lang.program import Program
from netdsl.lang.report import Report
from netdsl.lang.scope import LOST, Double, Flow, Scope, Tensor
from netdsl.lang.words import LONGEST_NAME, Spelled, read_word
from netdsl.limits import Limits
from netdsl.ops import Op, Shape, Word, bind, build, gives_filters, spelling, takes_filters
from netdsl.ops.base import Value

SHAPELESS = ("bool", "float", "name")
"""Kinds of settings that no shape depends on."""

MARKS = ("s", "p", "d", "g", "x")
"""What a number must follow in a word."""


@dataclass(frozen=True)
class Use:
    """A word where it stands: its parts, the call it is written in, the scope of that."""

    spelled: Spelled
    call: syntax.Call
    scope: Scope

    def place(self, part: str | None) -> Span:
        """Where a part of the word stands in the text."""
        return place(self.call, self.spelled.places, part, self.scope.around)

    def report(self, fault: OpFault) -> None:
        """Reports what the vocabulary found wrong, at its place."""
        span = self.place(fault.part)
        hint = fault.help
        if fault.code == "wrong-value" and hint is None:
            hint = self._no_parameter(span)
        self.scope.fault(fault.code, fault.message, span, hint)

    def _no_parameter(self, span: Span) -> str | None:
        """A hint where the value that a setting refuses is a name that no parameter has."""
        for argument in self.call.arguments or ():
            value = argument.value
            if argument.span is not span or not isinstance(value, syntax.Reference):
                continue
            if value.name not in self.scope.parameters:
                return f"no parameter is called `{value.name}` here"
        return None


class OpExpander(ABC):
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

    @abstractmethod
    def chain(self, chain: syntax.Chain, flow: Flow, scope: Scope) -> Flow:
        """What flows out of a chain that `flow` goes into."""

    def op(self, use: Use, flow: Flow, label: syntax.Label | None) -> Flow:
        """The op that a word spells, and its followers."""
        word = self._word_of(use) if self._is_sound(use) else None
        if word is None:
            return self._follow(use, Flow(LOST))
        pending = self._heed(word, flow)
        if flow.tensor.shape is None:
            result = self._shape_alone(word, use)
        else:
            result = self._build(word, use, flow, label)
        return self._follow(use, Flow(result, pending))

    def _follow(self, use: Use, flow: Flow) -> Flow:
        """The chain that an `every` says follows each op of this head."""
        head = use.spelled.head
        every = self.program.every.get(head)
        if every is None or use.scope.follows or use.call.bare:
            return flow
        self.used_every.add(head)
        if every.chain is None or self.dry:
            return flow
        return self.chain(every.chain, flow, use.scope.of_every(head, use.call.span))

    def _heed(self, word: Word, flow: Flow) -> tuple[Double, ...]:
        """Which doubles go on after this op. One with its filters given heeds none."""
        if not flow.pending or not takes_filters(word.head):
            return flow.pending
        if not gives_filters(word):
            self.heeded.update(double.span.start for double in flow.pending)
        return ()

    # The word -------------------------------------------------------------------------------

    def _is_sound(self, use: Use) -> bool:
        """Reports an option that is there twice, and a number that is too large."""
        spelled = use.spelled
        if spelled.twice is not None:
            message = f"`{spelled.twice}` is given twice"
            use.scope.fault("given-twice", message, use.place(spelled.twice))
            return False
        numbers = [*(spelled.kernel or ()), *(n for v in spelled.options.values() for n in v)]
        number = max(numbers, default=0)
        if number > self.limits.number:
            shown = f"{number:,}" if number < 10**18 else "a number of 19 digits or more"
            message = f"{shown} is too large a number; the most is {self.limits.number:,}"
            use.scope.fault("too-large", message, use.call.word)
            return False
        return True

    def _word_of(self, use: Use) -> Word | None:
        """The word with its arguments' values, and the defaults of its `every`; None after a
        fault in a value."""
        head = use.spelled.head
        arguments: list[Value] = []
        settings: dict[str, Value] = {}
        known = True
        for argument in use.call.arguments or ():
            value = evaluate(argument.value, use.scope.around)
            if isinstance(value, Unknown):
                known = False
            elif argument.name is None:
                arguments.append(plain(value))
            elif argument.name in settings:
                message = f"{head} is given {argument.name} twice"
                use.scope.fault("given-twice", message, argument.span)
            else:
                settings[argument.name] = plain(value)
        if not known:
            return None
        defaults = {} if use.scope.follows else self.defaults.get(head, {})
        taken = positional(head)[: len(arguments)]
        settings = {n: v for n, v in defaults.items() if n not in taken} | settings
        return Word(head, use.spelled.kernel, use.spelled.options, tuple(arguments), settings)

    # The op ---------------------------------------------------------------------------------

    def _build(self, word: Word, use: Use, flow: Flow, label: syntax.Label | None) -> Tensor:
        shape = flow.tensor.shape
        assert shape is not None
        try:
            op: Op = build(word, (shape,), flow.width)
        except OpFault as fault:
            use.report(fault)
            return self._despite(fault, word, use, shape, flow)
        name = use.scope.naming.name(op.head, label)
        return self.nodes.add(name, op, (flow.tensor,), use.call.span, use.scope.trail)

    def _despite(self, fault: OpFault, word: Word, use: Use, shape: Shape, flow: Flow) -> Tensor:
        """The shape that the op gives without its faulty setting, where that changes no shape."""
        rest = without(word, fault.part)
        if rest is None:
            return LOST
        try:
            return Tensor("", build(rest, (shape,), flow.width).output((shape,)))
        except OpFault as another:
            use.report(another)
            return LOST

    def _shape_alone(self, word: Word, use: Use) -> Tensor:
        """Checks what can be told without the input's shape. fc(N) gives N numbers all the same."""
        try:
            bind(word)
        except OpFault as fault:
            use.report(fault)
            return LOST
        if word.head == "fc" and word.arguments and isinstance(word.arguments[0], int):
            return Tensor("", (word.arguments[0],))
        return LOST

    # every ----------------------------------------------------------------------------------

    def read_defaults(self, scope: Scope) -> None:
        """Checks the file's `every` lines, and keeps their default arguments by name."""
        for every in self.program.every.values():
            head = _every_head(every, scope)
            if head is None:
                continue
            if every.chain is None and not every.word.arguments:
                message = f"`every {head}` says neither defaults nor what follows"
                scope.fault("empty-every", message, every.span, f"as in every {head} -> relu")
            # Any kernel will do to check the settings.
            spelled = Spelled(head, (1,) if spelling(head).required else None, {}, {})
            use = Use(spelled, every.word, scope)
            word = self._word_of(use)
            if word is None:
                continue
            try:
                bind(word)
            except OpFault as fault:
                use.report(fault)
                continue
            named = dict(zip(positional(head), word.arguments, strict=False))
            self.defaults[head] = {**named, **word.settings}


def positional(head: str) -> list[str]:
    """The settings of a head that need no name, in order."""
    return [setting.name for setting in spelling(head).settings if setting.positional]


def _every_head(every: syntax.Every, scope: Scope) -> str | None:
    text = every.word.plain
    spelled = read_word(text) if text is not None else None
    if spelled is not None and spelled.kernel is None and not spelled.options:
        return spelled.head
    hint = f"write `every {spelled.head}`" if spelled is not None else None
    message = f"every takes the head of an op, not `{every.word.word.text[:60]}`"
    scope.fault("unknown-op", message, every.word.word, hint)
    return None


def bad_word(text: str, call: syntax.Call, scope: Scope) -> bool:
    """Reports a word that begins as an op's and goes wrong after its head; False if it is none."""
    if len(text) > LONGEST_NAME:
        return False
    end = next((n for n in range(len(text), 1, -1) if read_word(text[:n])), 0)
    begins = read_word(text[:end])
    rest = text[end:]
    if begins is None:
        return False
    if end == len(begins.head) and rest[:1].isalpha() and rest not in MARKS:
        return False
    span = place(call, {"rest": (end, len(text))}, "rest", scope.around)
    if rest in MARKS:
        message, hint = f"a number is missing after `{text}`", f"as in {text}2"
    else:
        message = f"`{rest}` in `{text}` is no option of {begins.head}"
        hint = "options are sN, pN, dN, gN, same and ceil, after the kernel"
    scope.fault("unknown-option", message, span, hint)
    return True


def without(word: Word, part: str | None) -> Word | None:
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
