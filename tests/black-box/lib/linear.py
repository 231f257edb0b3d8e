"""Whether a history of one resource can be explained by a lock and a register that do one thing at
a time.

A history is a list of operations, each with when it was sent, when its answer came, and what the
answer was. It is linearizable when the operations can be put in one order that keeps to real time
(what ended before another began comes first) and in which a simple sequential object, `step`, would
have given the same answers. The search is that of Wing and Gong (1993) with Lowe's memory of what
was tried: after a set of operations, in a state, nothing is looked at twice.

What was not answered may have happened at any time after it was sent, or never. So may the end of a
lock by its deadline: it is an operation of its own, that could begin when the last promise that was
made of the lock had passed, and not before. Where nothing disturbs the server, a lock also has to
end in time: no answer may rest on it when its latest end is over.
"""

import math
from collections import namedtuple

# Sent and answered: moments. `required`: whether it is certain that it took effect.
# kind, given and result: see `step`.
Operation = namedtuple("Operation", "kind sent answered given result required")

# value: what the document is (None: there is none). holder: the fence of the live lock, or the name
# of an acquire that was not answered. last: the holder of the latest lock, also after its end.
# ended: the number of the operation that ended it. top: the greatest fence that is known.
State = namedtuple("State", "value holder last ended top")

EMPTY = State(None, None, None, -1, 0)

# How many steps a search may take before it gives up.
MOST_STEPS = 2_000_000


class Undecided(Exception):
    """The search took too many steps."""


def known(fence):
    return isinstance(fence, int)


class History:
    """The operations of one resource.

    `calm`: whether nothing disturbed the server, so that locks have to end in time; `late` is how
    many seconds they may be late.
    """

    def __init__(self, calm=False, late=1.0):
        self.calm = calm
        self.late = late
        self.operations = []
        # By fence: until when it was promised to live, and when it has to have ended.
        self.promised = {}
        self.latest = {}

    def add(self, kind, sent, answered, given=None, result=None):
        """Notes an operation; `answered` is None where there was no answer."""
        unknown = answered is None
        end = math.inf if unknown else answered
        self.operations.append(Operation(kind, sent, end, given, result, not unknown))

    def promise(self, fence, sent, answered, seconds):
        """A lock was said to live for so long, in this answer to a request sent then."""
        self.promised[fence] = max(self.promised.get(fence, -math.inf), sent + seconds)
        until = answered + seconds + self.late
        self.latest[fence] = max(self.latest.get(fence, -math.inf), until)

    def ends(self, fence):
        return self.latest[fence] if self.calm and fence in self.latest else math.inf

    # -- the search -------------------------------------------------------------------------------

    def explain(self):
        """None when the history can be explained, and otherwise what cannot be."""
        operations = self._all()
        if problem := self._too_late(operations):
            return problem
        return search(operations, self)

    def _all(self):
        read = self._read()
        strangers = self._strangers()
        kept = []
        for number, op in enumerate(self.operations):
            if not op.required:
                # What nobody saw need not have happened, and a renewal changes nothing here.
                if op.kind == "renew" or (op.kind == "write" and op.given[1] not in read):
                    continue
                if op.kind == "acquire":
                    if not strangers:
                        continue
                    name = f"acquire {number}"
                    op = op._replace(given=name)
                    # Its grant may also be given back at once, when its client has gone.
                    kept.append(Operation("expire", op.sent, math.inf, name, None, False))
            kept.append(op)
        for fence, since in self.promised.items():
            kept.append(Operation("expire", since, math.inf, fence, None, False))
        return sorted(kept, key=lambda op: (op.sent, op.answered))

    def _read(self):
        return {op.result for op in self.operations if op.kind == "read"} | {
            op.given[2] for op in self.operations if op.kind == "write"
        }

    def _strangers(self):
        """Whether an answer tells of a lock that no answered acquire was given."""
        seen = {op.result for op in self.operations if op.kind == "inspect"}
        seen |= {op.given[-1] for op in self.operations if op.result == "locked"}
        return any(known(fence) and fence not in self.promised for fence in seen)

    def _too_late(self, operations):
        for op in operations:
            fence = rests_on(op)
            if fence is not None and self.ends(fence) < op.sent:
                late = op.sent - self.ends(fence)
                return f"{show(op)} rests on a lock that had to end {late:.3f} s before"
        return None


def rests_on(op):
    """The fence that has to be of a live lock for this answer; None where there is none."""
    if not op.required:
        return None
    if op.kind in ("renew", "release") and op.result == "ok":
        return op.given
    if op.kind == "write" and op.result == "ok":
        return op.given[0]
    if op.kind == "inspect" or op.result == "locked":
        fence = op.result if op.kind == "inspect" else op.given[-1]
        return fence if known(fence) else None
    return None


def step(op, number, state, operations, history):
    """The state after `op`, or None where the object would not have answered so."""
    kind, given, result = op.kind, op.given, op.result
    holder = state.holder
    if kind == "read":
        return state if state.value == result else None
    if kind == "inspect":
        return state if holder == result or is_unknown(holder, result, history) else None
    if kind == "expire":
        return state._replace(holder=None, ended=number) if holder == given else None
    if kind == "acquire":
        if result == "locked":
            return state if names(holder, given[-1], history) else None
        fence = given if result is None else result
        if holder is not None or (known(fence) and fence <= state.top):
            return None
        top = fence if known(fence) else state.top
        return State(state.value, fence, fence, -1, top)
    if kind == "renew":
        return state if (holder == given) == (result == "ok") else None
    if kind == "release":
        if result == "lost":
            return state if holder != given else None
        return state._replace(holder=None, ended=number) if holder == given else None
    assert kind == "write", kind
    token, value, expected, by = given
    if result == "locked":
        return state if holder != token and names(holder, by, history) else None
    if result == "lost":
        return state if holder != token else None
    if result == "changed":
        # Judged after the locks.
        passes = may_write(op, state, token, operations, history)
        return state if passes and state.value != expected else None
    # ok, or not known
    if not may_write(op, state, token, operations, history):
        return None
    if expected is not ANY and state.value != expected:
        return None
    return state._replace(value=value)


# What a write expects that does not look at what is there.
ANY = "anything"


def may_write(op, state, token, operations, history):
    """Whether the guard lets a write pass: with the token of the live lock, or where there is none.

    A write that was let through while its lock lived may still be on its way when the lock ends;
    until it has landed, nobody else is granted one.
    """
    if state.holder == token:
        return True
    if token is None or state.holder is not None or state.last != token:
        return False
    ender = operations[state.ended]
    end = ender.answered if ender.kind != "expire" else history.ends(token)
    return op.sent < end


def is_unknown(holder, fence, history):
    """Whether `holder` is an acquire that was not answered, and this fence is of none that was."""
    return isinstance(holder, str) and known(fence) and fence not in history.promised


def names(holder, by, history):
    """Whether a refusal that says `by` holds the lock can be true of this holder."""
    if holder is None:
        return False
    return by is None or holder == by or is_unknown(holder, by, history)


def search(operations, history):
    count = len(operations)
    everything = sum(1 << number for number, op in enumerate(operations) if op.required)
    tried = set()
    stack = [(0, EMPTY)]
    best, best_done, best_state = 0, 0, EMPTY
    steps = 0
    while stack:
        done, state = stack.pop()
        if done & everything == everything:
            return None
        if (done, state) in tried:
            continue
        tried.add((done, state))
        size = (done & everything).bit_count()
        if size > best:
            best, best_done, best_state = size, done, state
        # Nothing that began after the first end among what is left can come next.
        end = math.inf
        candidates = []
        for number in range(count):
            if done >> number & 1:
                continue
            op = operations[number]
            if op.sent > end:
                break
            candidates.append(number)
            if op.required and op.answered < end:
                end = op.answered
        following = []
        for number in candidates:
            op = operations[number]
            if op.sent > end:
                continue
            steps += 1
            after = step(op, number, state, operations, history)
            if after is not None:
                following.append((op.required, -op.answered, number, after))
        if steps > MOST_STEPS:
            raise Undecided(f"{count} operations, {steps} steps")
        # The last is looked at first: what is certain before what may be, early ends before late.
        following.sort(key=lambda each: (each[0], each[1], each[2]))
        for _, _, number, after in following:
            stack.append((done | 1 << number, after))
    certain = [(number, op) for number, op in enumerate(operations) if op.required]
    left = [op for number, op in certain if not best_done >> number & 1]
    left.sort(key=lambda op: op.answered)
    shown = "; ".join(show(op) for op in left[:3])
    return f"{best} of {everything.bit_count()} can be explained, until {best_state}; then {shown}"


def show(op):
    answered = "never" if op.answered == math.inf else f"{op.answered:.3f}"
    return f"[{op.sent:.3f}, {answered}] {op.kind} {op.given} -> {op.result}"
