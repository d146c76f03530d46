"""Memory: flat in the number of points, and in the number of frames that the tower is given."""

import gc
import json
import subprocess
import sys

import pytest

from composed import composed
from videopool.evaluation.run import evaluate


def resident() -> int:
    """Bytes of this process in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("count", [20, pytest.param(50, marks=pytest.mark.soak)])
def test_many_points_take_no_more_memory_than_ten(tmp_path, data_dir, count):
    words = [f"results_dir={tmp_path}", f"data_dir={data_dir}", "logger=none", "job.workers=0", "features=none"]
    words += ["benchmark.clips=60", "benchmark.per_task=8", "benchmark.limit=1", "frames.num=2", "pooling=adaptive"]
    words.append("+benchmark.tasks=[existence,event_order]")
    shapes = [[t, h, w] for t in (1, 2) for h in (2, 3, 4, 6) for w in (2, 3, 4, 6, 12)][:count]
    seen = {}
    for number, shape in enumerate(shapes, start=1):
        evaluate(composed(*words, f"pooling.shape={shape}"))
        gc.collect()
        seen[number] = resident()
    assert len(list(tmp_path.glob("default/*/metrics.json"))) == count
    assert seen[count] < 1.05 * max(seen[n] for n in range(8, 13)), seen


TOWER = """
import json, resource, sys, torch
from transformers import CLIPVisionConfig, CLIPVisionModel
from videopool.models.backbone import VISION_CHUNK
from videopool.models.passes import tower_pass
from videopool.models.tower_outputs import LayerStates
torch.set_num_threads(1)
sizes = dict(hidden_size=192, intermediate_size=768, num_hidden_layers=3, num_attention_heads=3)
tower = CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=224, patch_size=16)).eval()
pixels = torch.zeros(64, 3, 224, 224)
pixels.random_()
peaks = []
with torch.inference_mode():
    for frames in (4, 16, 64):
        for chunk in pixels[:frames].split(VISION_CHUNK):
            kept = tower_pass(tower, chunk, [LayerStates("", (197, 192), (2,))])[0][:, :1].clone()
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
print(json.dumps(peaks))
"""


def test_the_towers_memory_is_flat_in_frames():
    done = subprocess.run([sys.executable, "-c", TOWER], capture_output=True, text=True, check=True)
    few, chunk, many = json.loads(done.stdout)
    assert many < 1.05 * chunk
    assert many < 1.25 * few
