"""The same prompt with a clip or an image in it, read here and as transformers reads it."""

import torch
from peft import PeftModel

from videopool.pooling import FrameCls, NoPooling, Strided
from videopool.reading.merging import merge
from videopool.reading.module import VideoLM

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def batch_logits(lm, ids, media, mask=None):
    """Logits [B, L', vocabulary] of prompts with clips and images in them, read in one go."""
    merged = merge(lm.backbone, ids, media, mask)
    return lm.backbone.logits(lm.backbone.read(merged.embeddings, merged.attention, merged.positions))


def ours(backbone, pixels, words="USER: {}\nis there any red star ? ASSISTANT:"):
    """Logits, and the same prompt as transformers takes it."""
    kind, marker = backbone.model.config.model_type, backbone.media_ids["video"]
    pooling = {"video_llava": FrameCls(NoPooling()), "llava_onevision": Strided(2, "bilinear")}.get(kind, NoPooling())
    ids = torch.tensor([backbone.tokenizer.encode(words.format(backbone.image_token))])
    lm = VideoLM(backbone, pooling)
    with torch.inference_mode():
        tokens = lm.visual_tokens(backbone.features(pixels)[None])
        logits = batch_logits(lm, ids, [[tokens[0]]])
    place = ids[0].tolist().index(marker)
    return logits, torch.cat([ids[:, :place], torch.full((1, tokens.shape[1]), marker), ids[:, place + 1 :]], 1)


@torch.inference_mode()
def theirs(model, ids, pixels, kind, marker):
    if kind == "llava":
        return model(input_ids=ids, pixel_values=pixels).logits
    if kind != "llava_next":
        return model(input_ids=ids, pixel_values_videos=pixels[None]).logits
    inner = model.get_base_model() if isinstance(model, PeftModel) else model  # whose own forward cuts tiles
    states, layers = (
        inner.model.vision_tower(pixels, output_hidden_states=True).hidden_states,
        inner.config.vision_feature_layer,
    )
    states = torch.cat([states[layer][:, 1:] for layer in ([layers] if isinstance(layers, int) else layers)], -1)
    merged = inner.get_input_embeddings()(ids)
    merged[0, ids[0] == marker] = inner.model.multi_modal_projector(states)[0]
    return inner(inputs_embeds=merged).logits
