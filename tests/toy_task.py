"""A benchmark as local tasks of lmms-eval: its documents as JSON, one task of multiple choice, one that writes."""

import json
from pathlib import Path

from videopool.benchmarks import Benchmark
from videopool.benchmarks.scoring import LETTERS

# As conf/prompt/plain.yaml puts a question with options, so that the toy model reads the same text.
TEXT = "{{question}}{% for one in options %} ({{'ABCDEFGHIJ'[loop.index0]}}) {{one}}{% endfor %}"
CHOICE = """\
task: toy_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: toy.json}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{text}"
doc_to_visual: video
doc_to_target: "{{{{place}}}}"
doc_to_choice: letters
target_delimiter: " ("
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""
WRITE = """\
include: toy_choice.yaml
task: toy_write
output_type: generate_until
generation_kwargs: {max_new_tokens: 8, until: ["\\n\\n"]}
doc_to_target: "{{options[place]}}"
doc_to_choice: null
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true, ignore_punctuation: true}
"""


def write_tasks(benchmark: Benchmark, folder: Path) -> list[str]:
    """Write toy_choice.yaml, toy_write.yaml and toy.json. Returns the samples' ids, by the number of their document."""
    folder.mkdir(parents=True, exist_ok=True)
    documents = []
    for sample in benchmark.samples:
        place = sample.options.index(sample.answer)
        letters = list(LETTERS[: len(sample.options)])
        documents.append(
            {"video": str(sample.clip.absolute()), "question": sample.question, "options": list(sample.options),
             "letters": letters, "place": place, "sample": sample.id}
        )  # fmt: skip
    (folder / "toy.json").write_text(json.dumps(documents))
    (folder / "toy_choice.yaml").write_text(CHOICE.format(text=TEXT))
    (folder / "toy_write.yaml").write_text(WRITE)
    return [sample.id for sample in benchmark.samples]
