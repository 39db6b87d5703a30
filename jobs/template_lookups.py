"""What a template asks of its names by a name that it spells out: `context['a']`, `job.x`."""

from collections.abc import Iterator
from dataclasses import dataclass

from jinja2 import nodes

_ROOTS = ("job", "scheduled_for", "now", "gathered", "context", "last_output")
_GUARDS = ("defined", "undefined", "default", "d")


@dataclass(frozen=True, slots=True)
class Lookup:
    """One part of a value, by a constant name; `line` counts from 1 in the template."""

    root: str
    name: str
    line: int


def lookups(tree: nodes.Template) -> tuple[Lookup, ...]:
    """Return what a template cannot do without, in its order.

    Only what every rendering comes by counts, and no branch. Left out is what it asks for with `is defined`,
    `default` or `in` somewhere, and every root whose name it gives to something else.
    """
    own = {name.name for name in tree.find_all(nodes.Name) if name.ctx != "load"}
    guarded = {(each.root, each.name) for each in _guarded(tree)}
    found = (each for each in map(_lookup, _certain(tree)) if each is not None and each.root not in own)
    return tuple(each for each in found if (each.root, each.name) not in guarded)


def _certain(node: nodes.Node) -> Iterator[nodes.Node]:
    """Yield what every rendering comes by: no branch, no loop's body, no macro."""
    yield node
    match node:
        case nodes.If(test=first) | nodes.CondExpr(test=first) | nodes.For(iter=first):
            yield from _certain(first)
        case nodes.And(left=first) | nodes.Or(left=first):
            yield from _certain(first)
        case nodes.Macro():
            return
        case nodes.CallBlock(call=first):
            yield from _certain(first)
        case _:
            for each in node.iter_child_nodes():
                yield from _certain(each)


def _lookup(node: nodes.Node) -> Lookup | None:
    """Return what a node itself asks a root for, by a constant name."""
    match node:
        case (
            nodes.Getattr(node=nodes.Name(name=str(root)), attr=str(name))
            | nodes.Getitem(node=nodes.Name(name=str(root)), arg=nodes.Const(value=str(name)))
        ) if root in _ROOTS:
            return Lookup(root, name, node.lineno)
    return None


def _looked_up(node: nodes.Node) -> Iterator[Lookup]:
    """Yield the parts of roots that a node or anything below it asks for."""
    for each in (node, *node.find_all((nodes.Getattr, nodes.Getitem))):
        if (found := _lookup(each)) is not None:
            yield found


def _guarded(tree: nodes.Template) -> Iterator[Lookup]:
    for each in tree.find_all((nodes.Test, nodes.Filter)):
        if each.name in _GUARDS and each.node is not None:
            yield from _looked_up(each.node)
    for compared in tree.find_all(nodes.Compare):
        for operand in compared.ops:
            match compared.expr, operand.expr:
                case nodes.Const(value=str(name)), nodes.Name(name=str(root)):
                    yield Lookup(root, name, compared.lineno)
