"""Run reports: what a plan run did and measured, as files that can be read and verified years later."""
