"""Births of outliers, tower against language model, and nearest words, each against plain loops."""

import math

import numpy as np
import pytest
import torch

from videopool.norms import Births, ClipNorms, Crossed, LeadingNeurons, VocabularyKinds, nearest
from videopool.norms.vocabulary import unit

RULES = ("times_median", "phi")


def drawn(rng, count, share=0.4, broken=()):
    valid = np.ones(count, bool)
    valid[list(broken)] = False
    outliers = {rule: valid & (rng.random(count) < share) for rule in RULES}
    return ClipNorms(rng.random(count), valid, outliers)


@pytest.mark.parametrize("layers", [2, 5])
def test_births_against_plain_loops(layers):
    rng, names = np.random.default_rng(layers), [f"encoder.{n}" for n in range(layers)]
    births, counts = Births(names, RULES), {rule: [0] * layers for rule in RULES}
    for size in (11, 1, 7):
        clip = [drawn(rng, size, 0.7) for _ in range(layers)]
        births.add(clip)
        for rule in RULES:
            for token in range(size):
                born = layers
                while born and clip[born - 1].outliers[rule][token]:
                    born -= 1
                if born < layers:
                    counts[rule][born] += 1
    shares = births.numbers()
    assert list(shares) == names
    for rule, own in counts.items():
        assert [shares[name][rule] for name in names] == pytest.approx([one / sum(own) for one in own])
    assert Births(names, RULES).numbers()["encoder.0"] == dict.fromkeys(RULES)


def test_tower_against_language_model():
    rng, crossed = np.random.default_rng(6), Crossed(RULES)
    cells, chance, tokens = {rule: dict.fromkeys(("both", "tower", "llm"), 0) for rule in RULES}, 0.0, 0
    for patches, read in ((12, 12), (9, 4), (5, 1)):
        tower, llm = drawn(rng, patches), drawn(rng, read)
        places = rng.permutation(patches)[:read]
        if read == 4:
            places[2] = -1  # such as a CLS token
        crossed.add(tower, llm, places)
        there = [n for n in range(read) if places[n] >= 0]
        tokens += len(there)
        for rule in RULES:
            for n in there:
                first, second = tower.outliers[rule][places[n]], llm.outliers[rule][n]
                if first or second:
                    cells[rule]["both" if first and second else "tower" if first else "llm"] += 1
        marks = [sum(tower.outliers["phi"][places[n]] for n in there), sum(llm.outliers["phi"][n] for n in there)]
        chance += math.prod(marks) / len(there)
    numbers = crossed.numbers()
    for rule, own in cells.items():
        for name, count in own.items():
            assert numbers[rule][name] == pytest.approx(count / tokens)
    assert numbers["phi"]["both_by_chance"] == pytest.approx(chance / tokens)
    assert Crossed(RULES).numbers()["phi"]["both"] is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nearest_entries(dtype):
    generator = torch.Generator().manual_seed(2)
    entries = torch.randn(13, 5, generator=generator).to(dtype)
    entries[4] = 0
    tokens = 9 * torch.randn(31, 5, generator=generator).to(dtype)
    places, cosines = nearest(tokens, unit(entries))
    for token, place, cosine in zip(tokens.double().numpy(), places, cosines, strict=True):
        plain = [
            token @ e / np.linalg.norm(token) / np.linalg.norm(e) if e.any() else -2 for e in entries.double().numpy()
        ]
        assert place == int(np.argmax(plain))
        assert cosine == pytest.approx(max(plain), rel=1e-5)


def test_kinds_of_tokens_against_plain_loops():
    rng, kinds, clips = np.random.default_rng(1), VocabularyKinds(9, "times_median"), []
    assert kinds.numbers()["dead"] is None
    for size in (13, 1, 6, 20):
        places, clip = rng.integers(0, 9, size) // 2, drawn(rng, size, 0.3, broken=[0] * (size > 6))
        kinds.add(places, np.full(size, 0.5), clip)
        clips.append((places, clip))
    counts, tokens = dict.fromkeys(("sink", "dead", "alive"), 0), 0
    seen = [{int(p) for p, ok, o in zip(places, c.valid, c.outliers["times_median"], strict=True) if ok and not o}
            for places, c in clips]  # fmt: skip
    for places, clip in clips:
        for place, ok, sink in zip(places, clip.valid, clip.outliers["times_median"], strict=True):
            tokens += ok
            common = sum(int(place) in own for own in seen) > 2
            counts["sink" if sink else "dead" if common else "alive"] += ok
    numbers = kinds.numbers()
    assert 0 < counts["dead"] < tokens
    for name, count in counts.items():
        assert numbers[name] == pytest.approx(count / tokens)
    assert numbers["entries"] == len(set().union(*seen))
    assert set(numbers["dead_entries"]) == {p for p in range(9) if sum(p in own for own in seen) > 2}
    assert numbers["cosine"] == pytest.approx(0.5)


def test_one_clip_has_no_dead_tokens():
    kinds, rng = VocabularyKinds(4, "phi"), np.random.default_rng(0)
    kinds.add(np.zeros(5, int), np.ones(5), drawn(rng, 5))
    numbers = kinds.numbers()
    assert (numbers["dead"], numbers["alive"], numbers["dead_entries"]) == (None, None, [])
    assert numbers["sink"] is not None


def test_leading_neurons_against_plain_loops():
    rng, leading = np.random.default_rng(5), LeadingNeurons(4)
    assert leading.numbers() == []
    means, outliers = {}, 0
    for frames in (3, 1):
        sums = rng.random((frames, 2, 6))
        sums[..., -1] = rng.integers(0, 5, (frames, 1))
        leading.add(sums)
        for t in range(frames):
            outliers += sums[t, 0, -1]
            for block, neuron in np.ndindex(2, 5):
                means[block + 1, neuron] = means.get((block + 1, neuron), 0) + sums[t, block, neuron]
    expected = sorted(means, key=lambda key: -means[key])[:4]
    assert [(block, neuron) for block, neuron, _ in leading.numbers()] == expected
    assert [mean for *_, mean in leading.numbers()] == pytest.approx([means[key] / outliers for key in expected])
