"""Device code of the fused engine: attention, dequantization, and the functions between matrix products."""
