"""Allocating energy from plants to demands at least cost: instances, certificates, families of instances that drift."""
