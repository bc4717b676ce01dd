"""Measures how systems that keep PostgreSQL available behave when the primary is hurt. See README.md."""
