"""The commands on the pages, and what they need to run."""

import csv
import re
import shlex
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path

import numpy as np

from conftest import ROOT, numbered_frames
from random_models import save
from videopool.shapes.clips import write_mp4

PAGES = sorted(
    path for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("[ae]*/*.md")] if path.is_file()
)
VARIABLE = re.compile(r"[A-Z_]+=")  # set for one command
FILE = re.compile(r"^cat > \S+ <<'END'\n.*?^END\n", flags=re.DOTALL | re.MULTILINE)  # written by the shell
SHELL = ("", "bash")  # kinds of fenced blocks that hold commands
FENCE = re.compile(r"^(`{3,})([^\n`]*)\n(.*?)^\1\s*$", flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    kind: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command, without a shell's own characters and variables set for it."""
        text = FILE.sub("", self.text).replace("\\\n", " ")
        lines = [shlex.split(line) for line in text.splitlines() if line.strip()]
        return [list(dropwhile(VARIABLE.match, words)) for words in lines]


def blocks(page: Path) -> list[Block]:
    return [Block(page, kind.strip(), text) for _, kind, text in FENCE.findall(page.read_text(encoding="utf-8"))]


def own_files(folder: Path) -> None:
    """The user's files that the commands name, small."""
    (folder / "my_videos").mkdir()
    frames = numbered_frames(12)
    for name in ("cat", "dog", "street"):
        write_mp4(folder / "my_videos" / f"{name}.mp4", frames, fps=4)
    write_mp4(folder / "my.mp4", np.roll(frames, 3, axis=0), fps=4)
    questions = [("cat", "what is the colour?", "red", "red", "blue"), ("dog", "how many?", "two", "one", "two")]
    for name, width in (("my_questions.csv", 5), ("open.csv", 3)):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(["video_name", "question", "answer", "a0", "a1"][:width])
            rows.writerows(row[:width] for row in questions)
    for page, name in (("README.md", "mine.py"), ("docs/compression.md", "my_parts.py")):
        text = next(block.text for block in blocks(ROOT / page) if block.text.startswith(f"# {name}"))
        (folder / name).write_text(text)
    save(folder / "my_llava", "llava")
    (folder / "my_llava" / "chat_template.jinja").write_text(
        "{% for message in messages %}USER: {% for part in message['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}<image>\n{% endif %}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
    )
