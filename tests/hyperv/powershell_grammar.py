"""PowerShell parsed with the tree-sitter grammar."""

from __future__ import annotations

from collections.abc import Iterator

import tree_sitter_powershell
from tree_sitter import Language, Node, Parser

PARSER = Parser(Language(tree_sitter_powershell.language()))


def nodes(root: Node) -> Iterator[Node]:
    yield root
    for child in root.children:
        yield from nodes(child)


def syntax_errors(text: str) -> list[str]:
    """Where the grammar finds something wrong: ``line: text``."""
    root = PARSER.parse(text.encode()).root_node
    wrong = [node for node in nodes(root) if node.is_error or node.is_missing]
    return [f"{node.start_point.row + 1}: {(node.text or b'').decode()[:60]}" for node in wrong]
