"""One whole sequence at a time, without any cache, as transformers reads it."""

import copy

import torch


@torch.inference_mode()
def plainly(backbone, before, tokens, ids, positions=None, pruning=None, asked=None):
    """Logits [after the last of the ids], from one sequence without any cache, by transformers' own forward.

    `asked` is how many of the ids are the question: the attention of its last token says which tokens stay.
    """
    ids = torch.tensor([[*before, *ids]])
    around = backbone.embed(ids)
    start, count = len(before), len(tokens)
    states = torch.cat([around[:, :start], tokens[None], around[:, start:]], dim=1)
    place = torch.arange(states.shape[1])
    if positions is not None:
        ends = start + int(positions[-1]) + torch.arange(states.shape[1] - start - count)
        place = torch.cat([place[:start], start + positions[:-1], ends])
    model = backbone.language_model
    if pruning is not None:
        ones = torch.ones(1, len(place))
        out = model(
            inputs_embeds=states, position_ids=place[None], attention_mask=ones, output_attentions=True,
            output_hidden_states=True, use_cache=False,
        )  # fmt: skip
        pooled = count - backbone.separators
        row = out.attentions[pruning.layer - 1][0].mean(0)[start + count + asked - 1, start : start + pooled]
        stay = sorted(sorted(range(pooled), key=lambda i: -float(row[i]))[: max(1, int(pruning.share * pooled))])
        kept = [*range(start), *(start + i for i in stay), *range(start + pooled, len(place))]
        states, place = out.hidden_states[pruning.layer][:, kept], place[kept]
        model = copy.copy(model)
        model._modules = {**model._modules, "layers": model.layers[pruning.layer :]}
    ones = torch.ones(1, len(place))
    hidden = model(inputs_embeds=states, position_ids=place[None], attention_mask=ones, use_cache=False)
    return backbone.logits(hidden.last_hidden_state[0])
