"""`odp inspect`: what is in a model, site by site, without running it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import rich_click as click

from odp.cli.shared_options import JSON

__all__ = ["inspect_command"]


@dataclass(frozen=True)
class Finding:
    """A place that the passes would rewrite, or a transcendental node that none of them takes."""

    pattern: str
    function: str
    node: str
    module_path: str
    graph: str


@click.command("inspect")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--shape", "shapes", multiple=True, metavar="NAME=D1,D2,...", help="Static shape.")
@JSON
def inspect_command(model: Path, shapes: Sequence[str], as_json: bool) -> int:
    """List every place of a MODEL (.onnx, or .pt2 of torch) that a pass would rewrite."""
    from odp.cli.rewrite import parse_shapes
    from odp.rewriting import find_sites

    found, left = find_sites(model, parse_shapes(shapes))
    findings = [
        Finding(site.pattern, site.function, site.node, site.module_path, site.graph_path)
        for site in found
    ]
    if as_json:
        click.echo(json.dumps({"sites": [asdict(f) for f in findings], "left": left}, indent=1))
        return 0
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for header in ("pattern", "function", "node", "module"):
        # A shortened path cannot be searched for.
        table.add_column(header, overflow="fold")
    for finding in findings:
        node = f"{finding.graph}/{finding.node}" if finding.graph else finding.node
        table.add_row(finding.pattern, finding.function, escape(node), escape(finding.module_path))
    console = Console()
    console.print(table)
    console.print(f"\n{len(findings)} sites that passes rewrite")
    for kind, count in left.items():
        console.print(f"{count} {escape(kind)} that no pass rewrites")
    return 0
