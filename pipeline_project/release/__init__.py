"""From a passed gate to served traffic: the model registry, and rollouts as documents."""
