"""The client and its calls. generate.py makes the synchronous ones from these."""
