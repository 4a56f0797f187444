"""Draw the import graph of the packages as an SVG picture: `python docs/draw_architecture.py`."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "circinus"
PICTURE = Path(__file__).with_name("architecture.svg")
LAYERS = (
    ("statistics", "specification", "operators", "queueing"),
    ("profiling",),
    ("estimation", "simulation"),
    ("planning", "matching"),
    ("serving", "control"),
    ("testing", "reporting"),
    ("api", "cli"),
)
WIDTH, HEIGHT, BOX, GAP = 920, 90, 150, 60


def package_imports() -> Counter[tuple[str, str]]:
    """Count the import statements from one package to another."""
    counts: Counter[tuple[str, str]] = Counter()
    for path in SOURCE.rglob("*.py"):
        package = path.relative_to(SOURCE).parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("circinus."):
                target = node.module.split(".")[1]
                if target != package:
                    counts[package, target] += 1
    return counts


def picture(counts: Counter[tuple[str, str]]) -> str:
    """Return the picture: a row for each layer, an arrow for each pair of packages, its width by the imports."""
    centre = {
        name: (WIDTH * (column + 1) / (len(row) + 1), HEIGHT * level + HEIGHT / 2)
        for level, row in enumerate(LAYERS)
        for column, name in enumerate(row)
    }
    lines = [
        f'<line x1="{centre[a][0]:.0f}" y1="{centre[a][1]:.0f}" x2="{centre[b][0]:.0f}" y2="{centre[b][1]:.0f}" '
        f'stroke="#9ab" stroke-width="{min(6.0, 0.5 + count / 8):.1f}" opacity="0.6"/>'
        for (a, b), count in sorted(counts.items())
        if a in centre and b in centre
    ]
    boxes = [
        f'<rect x="{x - BOX / 2:.0f}" y="{y - 18:.0f}" width="{BOX}" height="36" rx="6" fill="#eef4fa" stroke="#357"/>'
        f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle" font-family="sans-serif" font-size="15">{name}</text>'
        for name, (x, y) in centre.items()
    ]
    size = f'width="{WIDTH}" height="{HEIGHT * len(LAYERS)}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n' + "\n".join(lines + boxes) + "\n</svg>\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(package_imports()), encoding="utf-8")
