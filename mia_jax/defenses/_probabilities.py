"""What defenses that change probabilities share."""

FLOOR = 1e-12  # the smallest probability that an attacker sees
