"""Meanings of the numbers of norms.json, which holds them too."""

MEANINGS = {
    "tokens": "all tokens; zero and not_finite are among them and enter no other number",
    "zero": "tokens of norm 0",
    "not_finite": "tokens with a NaN or an infinite component",
    "mean": "mean norm of all tokens",
    "std": "standard deviation of the norms of all tokens",
    "quantiles": "norm that this share of all tokens does not exceed; from the histogram, within 0.55 %",
    "max_over_median": "largest norm over the median of all tokens",
    "max_over_median_in_clip": "the same in each clip, mean over clips",
    "excess_kurtosis": "of the norms of all tokens; 0 for a normal distribution, large for few extreme norms",
    "gini": "inequality of the norms of all tokens, 0 (equal) to 1; from the histogram, too low by 0.003 at most",
    "gini_in_clip": "the same in each clip, exact, mean over clips",
    "neighbour_cosine": "cosine similarity of tokens at equal positions in neighbouring frames, mean over pairs",
    "border_area": "share of tokens in the outermost ring of the grid",
    "centre_area": "share of tokens in the middle half of both axes",
    "low_texture_area": "share of tokens in the quarter of each clip's patches with least texture",
    "texture_spearman": "rank correlation of norm and patch texture in each clip, mean over clips",
    "outliers.cutoff": "norm above which a token is an outlier, one per clip, mean over clips",
    "outliers.share": "share of tokens that are outliers",
    "outliers.clips_with": "share of clips with at least one",
    "outliers.undefined_clips": "clips in which the rule does not apply (MAD 0) and finds none",
    "outliers.border": "share of outliers in the outermost ring; compare border_area",
    "outliers.centre": "share of outliers in the middle half of both axes; compare centre_area",
    "outliers.low_texture": "share of outliers on patches of low texture; compare low_texture_area",
    "outliers.next_frame": "share of outliers whose position is an outlier in the next frame too",
    "outliers.next_frame_by_chance": "the same if each frame's outliers were at random positions",
    "gap": "widest stretch of the histogram above its median that is empty, or if its ratio is below the rule's, that "
    "holds at most a fifth as many tokens as lie above it: ratio of its ends; share of tokens above its middle, 0 if "
    "the ratio is below the rule's",
    "components.largest": "largest size of a token's component in a clip, mean over clips",
    "components.largest_over_median": "the same over the median size of all components of the clip",
    "components.massive_dimensions": "dimensions with most massive activations",
    "components.sink_dimensions": "dimensions that are sink dimensions of most clips: RMS-normed tokens are largest in "
    "them",
    "components.sink_clips": "share of clips of which the first of these is a sink dimension",
    "components.largest_phi": "largest phi of a clip, mean over clips; phi: largest size of a sink dimension of the "
    "RMS-normed token",
    "components.phi_spearman": "rank correlation of phi and norm in each clip, mean over clips",
    "born": "by rule, share of the last measured layer's outliers that are outliers in this layer and all later ones, "
    "and not in the measured layer before",
    "with_tower": "by rule, share of tokens that are outliers both at the tower's feature layer and here, in the tower "
    "alone, here alone (llm), and in both if they were independent in each clip",
    "overlap": "by task, '' for all clips: shares of patches that the pooling keeps (a token has their place, or is "
    "made of one alone), merges with others or drops; of outliers at the tower's feature layer, also by chance. "
    "agreement: rank correlations, and Jaccard indices of the kept patches or of as many with the largest values",
    "register_neurons": "block, neuron, and its mean activation at outliers of the tower's feature layer: the largest "
    "means of all neurons up to it, for model.tower.neurons",
    "vocabulary": "share of tokens of each kind: sinks are outliers under times_median; of the others, dead tokens "
    "have a nearest entry of the vocabulary that is nearest in more than half of the clips; the rest is alive. "
    "entries: different nearest ones; dead_entries: ids of the most frequent dead ones; cosine: with the nearest, mean",
    "attention.not_finite_clips": "clips whose attention holds a NaN; they enter no other number",
    "attention.visual_share": "share of the attention from the last prompt position on visual tokens",
    "attention.max_over_median": "largest attention over the median of the visual tokens, mean over clips",
    "attention.spearman": "rank correlation of a token's attention and its norm as read, mean over clips",
    "attention.spearman_entering": "the same with its norm where it enters the layer",
    "attention.outliers.attention": "share of the visual tokens' attention on outliers, in clips that have any",
    "scores": "the same numbers of attention in the tower, or of norms of values, of 1 in each frame: visual_share is "
    "the share on patches, max_over_median is of a frame, spearman is with the norm at the feature layer",
    "attention.outliers.tokens": "share of outliers among visual tokens, in the same clips",
}
