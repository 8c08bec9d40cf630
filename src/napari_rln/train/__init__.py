"""Training the network on synthetic or given pairs."""
