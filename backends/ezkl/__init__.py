"""Zero-knowledge circuits of EZKL: what a graph costs there, before EZKL is called."""
