"""Networks: token encoder, context memory, Transformer blocks, dueling head, behind one agent network."""

from metarl_jax.networks.agent import AgentNetwork, NetworkConfig

__all__ = ["AgentNetwork", "NetworkConfig"]
