"""Attacks, one file each with make(...) -> Attack. HIGHER SCORE = MORE LIKELY A MEMBER."""
