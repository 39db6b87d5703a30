"""Makes a compiled template count: its turns, its calls, and what it makes without any call."""

from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.visitor import NodeTransformer

from jobs.template_values import TooLarge

LONGEST_NUMBER = 100_000  # bits


class Counting(NodeTransformer):
    """Rewrites a tree so that it calls `step`, `kept`, `mapped` and `put_together` of its sandbox."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        """Count each turn, also those that a condition leaves out."""
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_called("step", nodes.Const(_weight(node.body)))))
        if node.test is not None:
            node.test = nodes.And(_called("step", nodes.Const(1)), node.test)
        return node

    def _block(self, node: Any) -> Any:
        """Count each call."""
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_called("step", nodes.Const(_weight(node.body)))))
        return node

    visit_Macro = visit_CallBlock = _block

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        """Put texts together where they are counted."""
        self.generic_visit(node)
        return _called("put_together", *node.nodes)

    def visit_Const(self, node: nodes.Const) -> nodes.Const:
        """Refuse a number that it takes seconds to divide."""
        if isinstance(node.value, int):
            refuse_long(node.value)
        return node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Expr:
        """Look at each key before it is put in its place."""
        self.generic_visit(node)
        pairs: list[nodes.Expr] = [nodes.Tuple([each.key, each.value], "load") for each in node.items]
        return _called("mapped", nodes.List(pairs))

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        """Count a part of a text or list: Jinja takes it without asking its environment."""
        self.generic_visit(node)
        return _called("kept", node) if isinstance(node.arg, nodes.Slice) else node

    def _literal(self, node: Any) -> nodes.Expr:
        self.generic_visit(node)
        stored = isinstance(node, nodes.Tuple) and node.ctx != "load"
        return node if stored else _called("kept", node)

    visit_List = visit_Tuple = visit_Compare = _literal

    def visit_ScopedEvalContextModifier(self, node: nodes.Node) -> nodes.Node:
        """Refuse `autoescape`: prompts are no HTML, and marked texts grow whenever they meet others."""
        raise TemplateSyntaxError("autoescape is not allowed in a template", node.lineno)


def refuse_long(number: int) -> None:
    """Raise TooLarge for a number that it takes seconds to divide."""
    if number.bit_length() > LONGEST_NUMBER:
        raise TooLarge(f"a number of more than {LONGEST_NUMBER:,} bits")


def _called(name: str, *arguments: nodes.Expr) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), list(arguments), [], None, None)


def _weight(body: list[nodes.Node]) -> int:
    """Return how many pieces of text a body writes that no call counts."""
    return 1 + sum(1 for node in body for _ in node.find_all(nodes.TemplateData))
