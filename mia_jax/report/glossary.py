"""Defines the terms of a report, a line each: its glossary, and the tooltips of report.html."""

from __future__ import annotations

# After these words a term is a verb ('members score lower', 'no labels to slice by'), and means
# something else.
BEFORE_VERBS = (
    *("members", "non-members", "records", "rows", "examples", "models", "they", "that", "which"),
    *("who", "to", "must", "can", "may", "would", "could", "does", "not"),
)

# Other forms of terms; plurals of `score` and `slice` may be verbs.
ALIASES = {
    "shadow models": "shadow model",
    "non-members": "non-member",
    "members": "member",
    "targets": "target",
    "false-positive rate": "FPR",
}

TERMS = {
    "member": "A record that was in the training set of the attacked model.",
    "non-member": "A record that was not in the training set of the attacked model.",
    "membership inference": "Deciding from a model's behavior whether a record was in its training "
    "set.",
    "target": "An attacked (audited) model.",
    "shadow model": "A model that the attacker trains on similar data, to see how a model behaves "
    "with and without a record.",
    "population rows": "Records of the same kind that no attacked model was trained on.",
    "score": "What an attack computes for a record; higher means more likely a member.",
    "threshold": "The score from which on an attack calls a record a member.",
    "TPR": "True-positive rate: the share of the members that the attack identifies.",
    "FPR": "False-positive rate: the share of the non-members that the attack takes for members.",
    "realized FPR": "The false-positive rate that the attack really has at the allowed one; whole "
    "records can be flagged only, so it may be lower.",
    "precision": "The share of members among the records that the attack flags; it depends on how "
    "common members are.",
    "member share": "How many of the records an attacker asks about are members.",
    "ROC": "The curve of TPR against FPR over all thresholds.",
    "AUC": "Area under the ROC curve: how often a random member scores higher than a random "
    "non-member; 0.5 is random guessing.",
    "balanced accuracy": "The mean of TPR and 1 - FPR at the attack's threshold; 50% is random "
    "guessing.",
    "advantage": "TPR - FPR at the attack's threshold; 0 is random guessing.",
    "interval": "The range [low, high] of values that the data are compatible with, at the stated "
    "confidence level.",
    "significant": "Better than random guessing after the correction for all tests (Holm), so "
    "unlikely to be chance.",
    "minimum detectable": "The smallest leak that a study of this size would detect with 80% "
    "probability.",
    "Jaccard": "The index of two attacks: the members that both identify, as a share of those that "
    "at least one does.",
    "conformal p-values": "Where a record's score ranks among those of known non-members; small "
    "if few of these score as high.",
    "Benjamini-Hochberg": "A rule that chooses the records with small p-values so that the "
    "expected share of false ones is bounded.",
    "slice": "A group of records, such as those of one class, for which the attack is measured "
    "separately.",
    "epsilon": "The parameter of differential privacy: the smaller, the less any single record can "
    "change the model.",
    "delta": "The probability with which a guarantee of differential privacy may fail.",
    "canary": "A record that was inserted at random to measure how much the training reveals.",
}
