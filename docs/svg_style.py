"""How the pictures look that commands of this folder draw: light or dark, as the screen is.

They are 440 wide, which a telephone shows without making their letters too small.
"""

WIDTH = 440
STYLE = """  <style>
    text { fill: #1f2328; font-size: 12px; }
    .paper { fill: #ffffff; }
    .title { font-size: 14px; font-weight: bold; }
    .code { font-family: monospace; font-size: 13px; font-weight: bold; }
    .small { fill: #57606a; }
    .box { fill: #f6f8fa; stroke: #57606a; }
    .server { fill: #fff8e6; stroke: #9a6700; stroke-width: 2; }
    .green { fill: #0b6e4f; }
    .red { fill: #b42318; }
    .blue-line { stroke: #0969da; fill: none; }
    .green-line { stroke: #0b6e4f; stroke-width: 2; fill: none; }
    .red-line { stroke: #b42318; stroke-width: 2; fill: none; }
    .dashed { stroke-dasharray: 6 4; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .paper { fill: #0d1117; }
      .small { fill: #9da7b3; }
      .box { fill: #161b22; stroke: #6e7781; }
      .server { fill: #272115; stroke: #d4a72c; }
      .green { fill: #3fb98c; }
      .red { fill: #ff7b72; }
      .blue-line { stroke: #58a6ff; }
      .green-line { stroke: #3fb98c; }
      .red-line { stroke: #ff7b72; }
    }
  </style>
"""


def picture(height: int, title: str, body: list[str]) -> str:
    """A whole picture: what it shows in words, its ground, and what is on it."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" role="img" '
            'aria-labelledby="title">',
            f'  <title id="title">{title}</title>',
            STYLE + f'  <rect class="paper" width="{WIDTH}" height="{height}"/>',
            *(f"  {line}" for line in body),
            "</svg>\n",
        ]
    )
