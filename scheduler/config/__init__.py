"""Configuration: YAML files in, one frozen `Settings` out, or every fault with its line."""
