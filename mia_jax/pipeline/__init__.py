"""The stages of a run: build, validate, train, query, attack, measure, report."""
