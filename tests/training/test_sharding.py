"""trainer=fsdp: Lightning refuses FSDP without a GPU, PyTorch does not; two processes, cut up as a run would be."""

import multiprocessing

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from torch.distributed.fsdp import FullyShardedDataParallel

from videopool.models import load_backbone
from videopool.models.lora import make_trainable, trainable
from videopool.pooling import NoPooling
from videopool.reading.module import VideoLM
from videopool.training.loop import sharded


class Loss(torch.nn.Module):
    """The sum of the token losses of two clips."""

    def __init__(self):
        super().__init__()
        backbone = load_backbone("videopool:shapes/mini_llava")
        torch.manual_seed(0)
        make_trainable(backbone, {"rank": 4, "alpha": 8, "dropout": 0.0, "targets": ["q_proj", "v_proj"]})
        with torch.no_grad():
            for name, one in trainable(backbone).items():
                if "lora_B" in name:
                    one.normal_(std=0.02)
        self.lm = VideoLM(backbone, NoPooling())

    def forward(self, features, ids):
        tokens = self.lm.visual_tokens(features)
        return self.lm.token_losses(ids, [[one] for one in tokens], torch.ones_like(ids), ids)[0].sum()

    def gradients(self, run):
        """After backward: {name: gradient}, and how many numbers of the language model are held here."""
        tokenizer = self.lm.backbone.tokenizer
        ids = torch.tensor([tokenizer.encode("USER: <image>\nis there any red star ? ASSISTANT: yes")] * 2)
        features = torch.randn(2, 2, 145, 128, generator=torch.Generator().manual_seed(0))
        run(features, ids).backward()
        held = sum(one.numel() for one in self.lm.backbone.parts.language_model.parameters())
        return {name: one.grad.clone() for name, one in trainable(self.lm.backbone).items()}, held


def one_of_two(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    loss = Loss()
    strategy = sharded(loss.lm)
    module = FullyShardedDataParallel(
        loss, device_id=torch.device("cpu"), sharding_strategy=strategy.sharding_strategy, **strategy.kwargs
    )
    torch.save(loss.gradients(module), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.usefixtures("sooner")
def test_gradients_of_a_sharded_model_are_those_of_a_whole_one(tmp_path):
    multiprocessing.set_forkserver_preload(["videopool.models", "videopool.training.loop", "transformers"])
    processes.start_processes(one_of_two, (str(tmp_path),), nprocs=2, start_method="forkserver")
    whole = Loss()
    wanted, held = whole.gradients(whole)
    for rank in range(2):
        found, part = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert found.keys() == wanted.keys()
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name], gradient)
        assert part < 0.6 * held
    assert any(gradient.abs().max() > 0 for gradient in wanted.values())
