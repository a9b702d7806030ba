"""The network, in PyTorch alone: mapping a scene imports no more than it needs."""
