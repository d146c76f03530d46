"""The bundled toy model's configuration: a LLaVA-1.5 of about two million parameters for 96 px images."""

from transformers import CLIPImageProcessor, CLIPVisionConfig, LlamaConfig, LlavaConfig, PreTrainedTokenizerFast

from videopool.shapes.scene import IMAGE_SIZE

PATCH = 8


def mini_config(tokenizer: PreTrainedTokenizerFast) -> LlavaConfig:
    """CLIP ViT (4 layers x 128), two-layer GELU projector, LLaMA (5 layers x 128); 12 x 12 patches."""
    vision = CLIPVisionConfig(
        hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        image_size=IMAGE_SIZE, patch_size=PATCH, hidden_act="gelu", projection_dim=128,
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=128, intermediate_size=352, num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=4,
        max_position_embeddings=8192, initializer_range=0.04,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},  # content is found across long gaps
        vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=True,
    )  # fmt: skip
    return LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokenizer.get_vocab()["<image>"],
        vision_feature_layer=-1, vision_feature_select_strategy="default", projector_hidden_act="gelu",
        image_seq_length=(IMAGE_SIZE // PATCH) ** 2, tie_word_embeddings=True,
    )  # fmt: skip


def mini_image_processor() -> CLIPImageProcessor:
    """CLIP's own resize, crop and normalisation at 96 px."""
    return CLIPImageProcessor(size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})
